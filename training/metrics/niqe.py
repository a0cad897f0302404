"""NIQE, how far the statistics of a picture are from those of good photographs; no original needed.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
Processing Letters, 2013, on rounded Y as the authors' MATLAB code takes it. Each block of 96 × 96
pixels has 36 features: at two sizes, fits of (asymmetric) generalized Gaussians to the normalized
pixels and to their products with four neighbours. The distance is between the Gaussian of these
features and that of pristine pictures.
"""

from __future__ import annotations

import zipfile
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from runtime.errors import UserError
from training.degradations.bicubic import resize_unrounded
from training.given_weights import given_weights
from training.metrics.metric import Compared, Measure, Metric
from training.metrics.scoring import luma

_PRISTINE = "niqe_pris_params.npz"
_BLOCK = 96
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
Array: TypeAlias = NDArray[np.float64]


def _build() -> Measure:
    """Return the measure.

    Raises:
        UserError: If the file of the pristine pictures' statistics is missing or damaged.
    """
    path = given_weights(_PRISTINE, "NIQE")
    try:
        with np.load(path) as file:
            mean, covariance = file["mu_pris_param"].ravel(), file["cov_pris_param"]
            window = file["gaussian_window"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not NIQE's parameters, or damaged; copy it again") from error

    def measure(pictures: Compared) -> float | None:
        features = _features(luma(pictures.restored), window)
        whole = features[np.isfinite(features).all(1)]
        if len(whole) < 2:  # too few for a covariance
            return None
        # As in the authors' code, flat blocks count as far as they have features.
        offset = mean - np.nanmean(features, axis=0)
        spread = (covariance + np.cov(whole, rowvar=False)) / 2
        return float(np.sqrt(offset @ np.linalg.pinv(spread) @ offset))

    return measure


def _features(plane: Array, window: Array) -> Array:
    """Return the features of the blocks of an H × W plane of Y, blocks × 36."""
    rows, columns = (side // _BLOCK for side in plane.shape)
    if not rows or not columns:
        return np.empty((0, 36))
    plane = plane[: rows * _BLOCK, : columns * _BLOCK]
    small = resize_unrounded(plane, rows * _BLOCK // 2, columns * _BLOCK // 2)
    found = []
    for one, side in ((plane, _BLOCK), (small, _BLOCK // 2)):
        blocks = _normalized(one, window).reshape(rows, side, columns, side).swapaxes(1, 2)
        found.append(_features_of_blocks(blocks.reshape(-1, side, side)))
    return np.concatenate(found, axis=1)


def _normalized(plane: Array, window: Array) -> Array:
    """Return each pixel less the mean around it, in local standard deviations plus one."""

    def around(values: Array) -> Array:
        reach = len(window) // 2
        padded = F.pad(torch.from_numpy(values)[None, None], (reach,) * 4, mode="replicate")
        mean: Array = F.conv2d(padded, torch.from_numpy(window)[None, None])[0, 0].numpy()
        return mean

    mean = around(plane)
    normalized: Array = (plane - mean) / (np.sqrt(np.abs(around(plane**2) - mean**2)) + 1)
    return normalized


def _features_of_blocks(blocks: Array) -> Array:
    """Return the 18 features of N × side × side normalized blocks, N × 18."""
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for offset in _NEIGHBOURS:
        shape, left, right = _fit(blocks * np.roll(blocks, offset, (1, 2)))
        mean = (right - left) * _gamma(2 / shape) / _gamma(1 / shape)
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _fit(blocks: Array) -> tuple[Array, Array, Array]:
    """Fit asymmetric generalized Gaussians to blocks by their moments (Lasmar et al., 2009).

    Returns:
        The shape and the two scales of each block. Where no value is below zero or none above,
        the least shape and no scale (NaN).
    """
    values = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (
            np.sqrt((values**2 * side).sum(1) / side.sum(1)) for side in (values < 0, values > 0)
        )
        ratio = left / right
        moments = np.abs(values).mean(1) ** 2 / (values**2).mean(1)
        moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, expected = _moments_of_shapes()
    # The moments rise with the shape: the nearest of the table is on either side of its place.
    after = np.searchsorted(expected, moments).clip(1, len(shapes) - 1)
    nearer = moments - expected[after - 1] < expected[after] - moments
    shape: Array = np.where(np.isnan(moments), shapes[0], shapes[after - nearer])
    scale = np.sqrt(_gamma(1 / shape) / _gamma(3 / shape))
    return shape, left * scale, right * scale


@lru_cache
def _moments_of_shapes() -> tuple[Array, Array]:
    """Return shapes from 0.2 to 10, and E|x|² / E x² of generalized Gaussians of these shapes."""
    shapes = 0.2 + 0.001 * np.arange(9801, dtype=np.float64)
    return shapes, _gamma(2 / shapes) ** 2 / (_gamma(1 / shapes) * _gamma(3 / shapes))


def _gamma(values: Array) -> Array:
    found: Array = torch.from_numpy(values).lgamma().exp().numpy()
    return found


NIQE = Metric(
    "niqe",
    "NIQE",
    of_planes=False,
    lower_is_better=True,
    decimals=3,
    build=_build,
)
