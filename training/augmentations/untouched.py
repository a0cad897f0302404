"""Patches that nothing befell, so that a network learns to leave them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from training.augmentations.augmentation import Augmentation
from training.data.pictures import Picture


class Untouched(Augmentation):
    """A share of the windows is not degraded: the network is shown the original itself.

    Half of them are shown in other tones, each channel stretched or flattened on its own.
    """

    kind: Literal["untouched"] = "untouched"
    share: float = Field(gt=0, le=1, description="share of the patches, 0 to 1")

    @property
    def needs_equal_sizes(self) -> bool:
        """True: the original takes the place of its degraded form."""
        return True

    def apply(self, random: np.random.Generator, windows: Sequence[Picture]) -> list[Picture]:
        """Return the windows as they are, or the original in all places."""
        if random.random() >= self.share:
            return list(windows)
        original = windows[0]
        if random.integers(2):
            original = retoned(random, original)
        return [original] * len(windows)


def retoned(random: np.random.Generator, picture: Picture) -> Picture:
    """Return H × W × 3 uint8 pixels in other tones, each channel stretched or flattened on its own.

    Photographs of high contrast and of strong colours clip one channel or two, at one end or the
    other. What a distortion of contrast does, all channels stretched alike about the middle, leaves
    gaps between the levels; here noise below half a level fills them.
    """
    gain = random.uniform(0.9, 1.5) * random.uniform(0.85, 1.15, 3)
    pivot = random.uniform(32, 224, 3)
    levels = gain * (picture - pivot) + pivot + random.uniform(-0.5, 0.5, picture.shape)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
