"""What the sections of a recipe have in common: strict, frozen, typed, told apart by ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Field

_Entry = TypeVar("_Entry", bound="Entry")


class Configuration(BaseModel):
    """A section of a recipe, or an entry of one: unknown keys and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Entry(Configuration):
    """One of several kinds of a section. A subclass narrows ``kind`` to the kinds it describes."""

    kind: str


def by_kind(*entries: type[_Entry]) -> Mapping[str, type[_Entry]]:
    """Return the classes of a list of a recipe by the values of their key ``kind``."""
    return {
        kind: entry for entry in entries for kind in get_args(entry.model_fields["kind"].annotation)
    }


def one_of(kinds: Mapping[str, type[_Entry]]) -> Any:
    """Return the type of an entry of a list, which its ``kind`` tells; mypy cannot read it."""
    return Annotated[Union[tuple(dict.fromkeys(kinds.values()))], Field(discriminator="kind")]  # noqa: UP007
