"""PSNR, the logarithm of the mean squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.metrics.metric import Compared, Metric, check_shapes


def psnr(restored: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Return the PSNR in dB of two arrays of one shape, peak 255 (inf if they are equal)."""
    check_shapes(restored, reference)
    error = np.mean((restored.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else float("inf")


def _measure(pictures: Compared) -> float:
    """Return the PSNR of all planes together."""
    return psnr(pictures.planes(pictures.restored), pictures.planes(pictures.original))


PSNR = Metric(
    "psnr",
    "PSNR",
    of_planes=True,
    lower_is_better=False,
    decimals=2,
    build=lambda: _measure,
    unit="dB",
)
