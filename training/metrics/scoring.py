"""How restored pictures are compared with their originals, by the protocols of the literature.

Super-resolution: without a border of ``scale`` pixels, PSNR and SSIM on Y of ITU-R BT.601 (studio
range), rounded to 8 bits as MATLAB's ``rgb2ycbcr`` does. Restoration at the same size: on RGB,
nothing cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.metrics.metric import Compared, Metric
from training.metrics.psnr import PSNR, psnr
from training.metrics.ssim import SSIM, mean_ssim

_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0


def luma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return Y of an H × W × 3 RGB picture: integers in [16, 235] as float64, H × W."""
    return np.floor(picture.astype(np.float64) @ _LUMA + 16.0 + 0.5)


@dataclass(frozen=True)
class Scoring:
    """How restored pictures are compared with their originals.

    Attributes:
        suffix: What titles of metrics of planes add in tables.
        planes: Turns an H × W × 3 uint8 picture into the planes that are compared, H × W × C.
        cuts_border: Leave ``scale`` pixels at each edge out.
    """

    suffix: str
    planes: Callable[[NDArray[np.uint8]], NDArray[Any]]
    cuts_border: bool

    @property
    def psnr_title(self) -> str:
        """Name of the PSNR in tables."""
        return self.title(PSNR)

    @property
    def ssim_title(self) -> str:
        """Name of the SSIM in tables."""
        return self.title(SSIM)

    def title(self, metric: Metric) -> str:
        """Return the name of a metric in tables."""
        return metric.title + (self.suffix if metric.of_planes else "")

    def border(self, scale: int) -> int:
        """Return how many pixels at each edge are left out."""
        return scale if self.cuts_border else 0

    def compared(
        self, restored: NDArray[np.uint8], original: NDArray[np.uint8], scale: int
    ) -> Compared:
        """Return what metrics measure: both H × W × 3 pictures without the border."""
        return Compared(self._cut(restored, scale), self._cut(original, scale), self.planes)

    def psnr(self, restored: NDArray[np.uint8], original: NDArray[np.uint8], scale: int) -> float:
        """Return the PSNR in dB of all compared planes together (inf if they are equal)."""
        pictures = self.compared(restored, original, scale)
        return psnr(self.planes(pictures.restored), self.planes(pictures.original))

    def ssim(self, restored: NDArray[np.uint8], original: NDArray[np.uint8], scale: int) -> float:
        """Return the mean SSIM of the compared planes."""
        return mean_ssim(self.compared(restored, original, scale))

    def _cut(self, picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        border = self.border(scale)
        return picture[border : picture.shape[0] - border, border : picture.shape[1] - border]


LUMA = Scoring("-Y", lambda picture: luma(picture)[..., None], cuts_border=True)
RGB = Scoring("", lambda picture: picture, cuts_border=False)
