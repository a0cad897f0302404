"""The list of methods; a new method is a module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Discriminator, Tag

from training.configuration import by_kind
from training.methods.adversarial import Adversarial
from training.methods.method import Method
from training.methods.supervised import Supervised

METHODS = by_kind(
    Supervised,
    Adversarial,
)
"""The methods that a recipe can name, by kind."""


def method_of(content: Any) -> str:
    """Return the kind of a method, parsed or not; ``supervised`` if the key is missing."""
    if isinstance(content, dict):
        return str(content.get("kind", "supervised"))
    return str(getattr(content, "kind", ""))


if TYPE_CHECKING:
    AnyMethod: TypeAlias = Method
else:  # a union made from the list, which mypy cannot read
    AnyMethod = Annotated[
        Union[tuple(Annotated[one, Tag(kind)] for kind, one in METHODS.items())],  # noqa: UP007
        Discriminator(method_of),
    ]
