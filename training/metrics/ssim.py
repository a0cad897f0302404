"""SSIM, the similarity of luminance, contrast and structure in small windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.metrics.metric import Compared, Metric, check_shapes

_SIGMA, _WINDOW = 1.5, 11


def ssim(restored: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Return the mean SSIM of two H × W planes with peak 255.

    Wang et al., "Image quality assessment", 2004: 11 × 11 Gaussian window of σ = 1.5, valid
    positions only, K1 = 0.01, K2 = 0.03.

    Raises:
        ValueError: If the planes differ in shape or are smaller than the window.
    """
    check_shapes(restored, reference)
    if min(restored.shape) < _WINDOW:
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


def mean_ssim(pictures: Compared) -> float:
    """Return the mean SSIM of the planes.

    Raises:
        ValueError: If they are smaller than the window.
    """
    ours, theirs = pictures.planes(pictures.restored), pictures.planes(pictures.original)
    return float(np.mean([ssim(ours[..., one], theirs[..., one]) for one in range(ours.shape[2])]))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    for _ in range(2):
        rows = plane.shape[0] - _WINDOW + 1
        plane = sum(
            (weight * plane[tap : tap + rows] for tap, weight in enumerate(window)),
            start=np.zeros((rows, plane.shape[1])),
        ).T
    return plane


def _measure(pictures: Compared) -> float | None:
    return mean_ssim(pictures) if min(pictures.original.shape[:2]) >= _WINDOW else None


SSIM = Metric(
    "ssim",
    "SSIM",
    of_planes=True,
    lower_is_better=False,
    decimals=4,
    build=lambda: _measure,
)
