"""MATLAB's ``imresize`` with its antialiased bicubic kernel, to the bit.

The benchmarks of super-resolution define their low-resolution pictures by MATLAB's function, so
rounding follows MATLAB: Set5's LRx2, LRx3 and LRx4 are rounded to 8 bits after the rows and again
after the columns; its LRx8 only at the end. Both are reproduced to the bit.
Kernel: Keys, "Cubic convolution interpolation", 1981, with a = −0.5.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.degradations.degradation import (
    Degradation,
    DegradationStep,
    Degraded,
    WindowDegradation,
)

_REACH = 2
"""Radius of the kernel, in pixels of the smaller picture."""
_STRIPE = 256
"""Values of a row summed at once, so that the sums stay in the processor's cache."""


def resize(
    picture: NDArray[np.uint8], height: int, width: int, round_between: bool = True
) -> NDArray[np.uint8]:
    """Resize a picture as MATLAB does.

    Args:
        picture: H × W or H × W × C, uint8.
        height: Rows of the result.
        width: Columns of the result.
        round_between: Round to 8 bits between the rows and the columns.

    Returns:
        The resized picture, uint8.
    """
    rows = _resize_rows(picture, height)
    if round_between:
        rows = _to_uint8(rows).astype(np.float64)
    columns = _resize_rows(rows.swapaxes(0, 1), width).swapaxes(0, 1)
    return np.ascontiguousarray(_to_uint8(columns))


def resize_unrounded(
    picture: NDArray[np.floating[Any]], height: int, width: int
) -> NDArray[np.float64]:
    """Resize an H × W or H × W × C picture as MATLAB does one of floating-point numbers."""
    rows = _resize_rows(picture, height)
    return _resize_rows(rows.swapaxes(0, 1), width).swapaxes(0, 1)


def reduce(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Reduce a picture ``scale`` times; its sides must be multiples of ``scale``."""
    height, width = picture.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"{height}×{width} is no multiple of {scale}; crop the picture first")
    return resize(picture, height // scale, width // scale, _rounds_between(scale))


def enlarge(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge a picture ``scale`` times: the baseline every network is compared with."""
    return resize(picture, picture.shape[0] * scale, picture.shape[1] * scale)


def margin(scale: int) -> int:
    """Return how many pixels beyond a patch the reduction of its edge pixels reads, at most."""
    return _REACH * scale


def reduce_windows(windows: Tensor, scale: int) -> Tensor:
    """Reduce patches that lie in windows with a margin on every side, on any device.

    The result equals that of ``reduce``; at scales 2 and 4 to the bit, because float32 holds their
    kernels exactly. At other scales a value half-way between two levels may round to the other one.

    Args:
        windows: N × side × side × 3, uint8; side = patch · scale + 2 · ``margin(scale)``.
        scale: Reduction factor.

    Returns:
        N × patch × patch × 3, uint8.
    """
    weights = _window_weights(windows.shape[1], scale, windows.device)
    with torch.autocast(windows.device.type, enabled=False):  # bf16 has too few bits
        rows = weights @ windows.permute(0, 3, 1, 2).float()
        reduced = _rounded((_rounded(rows) if _rounds_between(scale) else rows) @ weights.T)
    return reduced.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


def crop_to_multiple(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Cut a picture at the bottom and the right so that its sides are multiples of ``scale``."""
    height, width = (side - side % scale for side in picture.shape[:2])
    return picture[:height, :width]


@lru_cache
def _window_weights(side: int, scale: int, device: torch.device) -> Tensor:
    """Return the weight of each window pixel in each patch pixel: patch × side, float32."""
    weights, sources = _contributions(side, side // scale)
    matrix = np.zeros((len(weights), side), np.float32)
    np.add.at(matrix, (np.arange(len(weights))[:, None], sources), weights)
    return torch.from_numpy(matrix[_REACH:-_REACH]).to(device)


def _rounds_between(scale: int) -> bool:
    """Return whether a reduction is also rounded after the rows; see the module's docstring."""
    return scale < 8


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)


def _to_uint8(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _resize_rows(picture: NDArray[Any], rows: int) -> NDArray[np.float64]:
    weights, sources = _contributions(picture.shape[0], rows)
    columns = picture.reshape(picture.shape[0], -1)
    result = np.zeros((rows, columns.shape[1]))
    taps = np.flatnonzero(weights.any(axis=0))
    for left in range(0, columns.shape[1], _STRIPE):
        stripe = np.s_[:, left : left + _STRIPE]
        for tap in taps:
            result[stripe] += weights[:, tap, None] * columns[stripe][sources[:, tap]]
    return result.reshape(rows, *picture.shape[1:])


def _contributions(length: int, target: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the weights and the source rows of every target row, target × taps each."""
    scale = target / length
    stretch = max(1.0, 1.0 / scale)
    taps = int(np.ceil(4 * stretch)) + 2
    centres = (np.arange(target) + 0.5) / scale - 0.5
    first = np.floor(centres - 2 * stretch).astype(np.intp)
    sources = first[:, None] + np.arange(taps)
    weights = _keys((centres[:, None] - sources) / stretch) / stretch
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    return weights, mirrored[sources % (2 * length)]


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _degrade(picture: NDArray[np.uint8], scale: int, random: np.random.Generator) -> Degraded:
    return Degraded(reduce(picture, scale))


DEGRADATION = Degradation(
    "bicubic", _degrade, reduces=True, of_windows=WindowDegradation(margin, reduce_windows)
)


class Bicubic(DegradationStep):
    """Pictures are reduced by the network's scale, as MATLAB reduces them."""

    kind: Literal["bicubic"] = "bicubic"

    def degradation(self) -> Degradation:
        """Return the reduction."""
        return DEGRADATION
