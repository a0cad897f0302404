"""The list of losses; a new loss is a module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from training.configuration import by_kind
from training.losses.distance import Distance
from training.losses.loss import Loss
from training.losses.total_variation import TotalVariation

LOSSES = by_kind(
    Distance,
    TotalVariation,
)
"""The losses that a recipe can name, by kind."""

if TYPE_CHECKING:
    AnyLoss: TypeAlias = Loss
else:  # a union made from the list, which mypy cannot read
    AnyLoss = Annotated[Union[tuple(dict.fromkeys(LOSSES.values()))], Field(discriminator="kind")]  # noqa: UP007
