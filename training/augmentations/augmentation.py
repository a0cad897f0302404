"""The contract of augmentations: what is done to an original and its degraded form alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from training.configuration import Entry
from training.data.pictures import Picture


class Augmentation(Entry):
    """An augmentation of a recipe, listed in ``training.augmentations.kinds``."""

    @property
    def needs_equal_sizes(self) -> bool:
        """Whether the original and its degraded form must be of one size."""
        return False

    @abstractmethod
    def apply(self, random: np.random.Generator, windows: Sequence[Picture]) -> list[Picture]:
        """Return the windows that the network learns from instead.

        Args:
            random: The generator; equal states change windows equally.
            windows: The original, side × side × 3 uint8, and its degraded form at the same place,
                unless that is computed from the original afterwards. They may be views of whole
                pictures and must not be written to.
        """
