"""The list of augmentations; a new augmentation is a module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from training.augmentations.augmentation import Augmentation
from training.augmentations.colours import PermutedColours
from training.augmentations.flips import Flips
from training.augmentations.untouched import Untouched
from training.configuration import by_kind, one_of

AUGMENTATIONS = by_kind(
    Flips,
    PermutedColours,
    Untouched,
)
"""The augmentations that a recipe can name, by kind."""

if TYPE_CHECKING:
    AnyAugmentation: TypeAlias = Augmentation
else:
    AnyAugmentation = one_of(AUGMENTATIONS)
