"""The list of augmentations; a new augmentation is a module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from training.augmentations.augmentation import Augmentation
from training.augmentations.colours import PermutedColours
from training.augmentations.flips import Flips
from training.augmentations.untouched import Untouched
from training.configuration import by_kind

AUGMENTATIONS = by_kind(
    Flips,
    PermutedColours,
    Untouched,
)
"""The augmentations that a recipe can name, by kind."""

if TYPE_CHECKING:
    AnyAugmentation: TypeAlias = Augmentation
else:  # a union made from the list, which mypy cannot read
    AnyAugmentation = Annotated[
        Union[tuple(dict.fromkeys(AUGMENTATIONS.values()))],  # noqa: UP007
        Field(discriminator="kind"),
    ]
