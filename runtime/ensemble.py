"""The ×8 geometric self-ensemble: the mean over all turns and flips of a picture.

Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super resolution",
CVPR 2016, section 3.5. It costs eight inferences and gains a little accuracy with every network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatPicture = NDArray[np.float32]

# Quarter turns in an order that changes the shape of an oblong picture only once.
_QUARTER_TURNS = (0, 2, 1, 3)


ORIENTATIONS = tuple((turns, flip) for turns in _QUARTER_TURNS for flip in (False, True))
"""Number of quarter turns, and whether to flip first; orientation 0 is the picture unchanged."""


def restore(run: Callable[[FloatPicture, int], FloatPicture], image: FloatPicture) -> FloatPicture:
    """Restore all eight orientations of a picture and average them in float.

    Args:
        run: Restores one picture, H × W × 3 → scale·H × scale·W × 3; its second argument is the
            index of the picture's orientation in ``ORIENTATIONS``.
        image: H × W × 3.

    Returns:
        The mean of the eight restored pictures, each turned back, scale·H × scale·W × 3.
    """
    restored = [
        turned_back(run(oriented(image, index), index), index) for index in range(len(ORIENTATIONS))
    ]
    mean: FloatPicture = np.mean(restored, axis=0, dtype=np.float32)
    return mean


def oriented(image: FloatPicture, index: int) -> FloatPicture:
    """Turn and flip a picture."""
    turns, flip = ORIENTATIONS[index]
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if flip else image, turns))


def turned_back(image: FloatPicture, index: int) -> FloatPicture:
    """Undo ``oriented``."""
    turns, flip = ORIENTATIONS[index]
    upright = np.rot90(image, -turns)
    return upright[:, ::-1] if flip else upright
