"""The sides of pictures that a network takes, and reflecting pictures up to them.

Networks that halve a picture and enlarge it again take sides that are multiples of a few pixels,
and networks that reflect their input need enough of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sides:
    """The heights and widths that a network takes.

    Attributes:
        multiple: Pixels of which they are multiples.
        minimum: The least, a multiple of ``multiple``.
    """

    multiple: int = 1
    minimum: int = 1

    def fit(self, size: tuple[int, ...]) -> bool:
        """Tell whether the network takes pictures of a height and width."""
        return all(self.fitting(side) == side for side in size)

    def fitting(self, side: int) -> int:
        """Return the least side that the network takes and that is not smaller."""
        return -(-max(side, self.minimum) // self.multiple) * self.multiple

    def within(self, side: int) -> int:
        """Return the greatest side that the network takes and that is not larger.

        Where even the least that it takes is larger, it is that.
        """
        return max(self.minimum, side // self.multiple * self.multiple)

    def reflected(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Continue a picture by reflection at its bottom and right until its sides fit.

        Args:
            picture: H × W × C. A picture smaller than what is added is reflected repeatedly.

        Returns:
            The picture itself if its sides fit.
        """
        below, right = (self.fitting(side) - side for side in picture.shape[:2])
        if not below and not right:
            return picture
        return np.pad(picture, ((0, below), (0, right), (0, 0)), mode="reflect")


ANY_SIDES = Sides()
"""Of a network that takes pictures of any size."""
