"""Quarter turns and mirroring: the eight symmetries of a square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from training.augmentations.augmentation import Augmentation
from training.data.pictures import Picture


class Flips(Augmentation):
    """Windows turned by quarters and mirrored, at random, as all the papers do."""

    kind: Literal["flips"] = "flips"

    def apply(self, random: np.random.Generator, windows: Sequence[Picture]) -> list[Picture]:
        """Return all windows in one of the eight ways."""
        turns, flip = int(random.integers(4)), bool(random.integers(2))
        return [np.rot90(one[:, ::-1] if flip else one, turns) for one in windows]
