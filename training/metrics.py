"""PSNR and SSIM, by the protocols of the literature.

Super-resolution: on Y of ITU-R BT.601 (studio range), rounded to 8 bits as MATLAB's ``rgb2ycbcr``
does, without a border of ``scale`` pixels. Restoration at the same size: on RGB, nothing cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["psnr", "ssim"]
"""The scores that a run can log; PSNR in dB."""

_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
_SSIM_SIGMA, _SSIM_WINDOW = 1.5, 11


def luma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return Y of an H × W × 3 RGB picture: integers in [16, 235] as float64, H × W."""
    return np.floor(picture.astype(np.float64) @ _LUMA + 16.0 + 0.5)


@dataclass(frozen=True)
class Scoring:
    """How restored pictures are compared with their originals.

    Attributes:
        psnr_title: Name of the PSNR in tables.
        ssim_title: Name of the SSIM in tables.
        planes: Turns an H × W × 3 uint8 picture into the planes that are compared, H × W × C.
        cuts_border: Leave ``scale`` pixels at each edge out.
    """

    psnr_title: str
    ssim_title: str
    planes: Callable[[NDArray[np.uint8]], NDArray[Any]]
    cuts_border: bool

    def border(self, scale: int) -> int:
        """Return how many pixels at each edge are left out."""
        return scale if self.cuts_border else 0

    def psnr(self, restored: NDArray[np.uint8], original: NDArray[np.uint8], scale: int) -> float:
        """Return the PSNR in dB of all compared planes together (inf if they are equal)."""
        return psnr(self._compared(restored, scale), self._compared(original, scale))

    def ssim(self, restored: NDArray[np.uint8], original: NDArray[np.uint8], scale: int) -> float:
        """Return the mean SSIM of the compared planes."""
        ours, theirs = self._compared(restored, scale), self._compared(original, scale)
        planes = range(theirs.shape[2])
        return float(np.mean([ssim(ours[..., one], theirs[..., one]) for one in planes]))

    def _compared(self, picture: NDArray[np.uint8], scale: int) -> NDArray[Any]:
        planes, border = self.planes(picture), self.border(scale)
        return planes[border : planes.shape[0] - border, border : planes.shape[1] - border]


LUMA = Scoring("PSNR-Y", "SSIM-Y", lambda picture: luma(picture)[..., None], cuts_border=True)
RGB = Scoring("PSNR", "SSIM", lambda picture: picture, cuts_border=False)


def psnr(restored: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Return the PSNR in dB of two arrays of one shape, peak 255 (inf if they are equal)."""
    _check_shapes(restored, reference)
    error = np.mean((restored.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else float("inf")


def ssim(restored: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Return the mean SSIM of two H × W planes with peak 255.

    Wang et al., "Image quality assessment", 2004: 11 × 11 Gaussian window of σ = 1.5, valid
    positions only, K1 = 0.01, K2 = 0.03.

    Raises:
        ValueError: If the planes differ in shape or are smaller than the window.
    """
    _check_shapes(restored, reference)
    if min(restored.shape) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least 11×11 pixels; found {restored.shape}")
    x, y = restored.astype(np.float64), reference.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean(luminance * structure))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window /= window.sum()
    for _ in range(2):
        rows = plane.shape[0] - _SSIM_WINDOW + 1
        plane = sum(
            (weight * plane[tap : tap + rows] for tap, weight in enumerate(window)),
            start=np.zeros((rows, plane.shape[1])),
        ).T
    return plane


def _check_shapes(restored: NDArray[np.generic], reference: NDArray[np.generic]) -> None:
    if restored.shape != reference.shape:
        raise ValueError(
            f"pictures of different sizes cannot be compared: {restored.shape} restored, "
            f"{reference.shape} reference"
        )
