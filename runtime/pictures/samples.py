"""The layout of a picture's samples in memory, chosen so that encoding needs no full copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint8 | np.uint16]

BAND_ROWS = 64


def bands(pixels: NDArray[Any], alpha: NDArray[Any] | None) -> Iterator[NDArray[Any]]:
    """Yield the samples as encoders need them: contiguous rows, alpha behind the colours.

    Args:
        pixels: H × W × 1 or H × W × 3.
        alpha: H × W × 1 of the same type, or None.

    Yields:
        Arrays of at most ``BAND_ROWS`` rows, from the top down.
    """
    for top in range(0, pixels.shape[0], BAND_ROWS):
        rows = slice(top, top + BAND_ROWS)
        planes = [pixels[rows]] if alpha is None else [pixels[rows], alpha[rows]]
        yield np.ascontiguousarray(np.concatenate(planes, axis=2))


def empty_padded(height: int, width: int) -> NDArray[np.uint8]:
    """Return an uninitialized 8-bit RGB picture with a byte of padding behind each pixel.

    Pillow's JPEG and WebP encoders work on four bytes a pixel and use this memory without a copy.
    """
    return np.empty((height, width, 4), np.uint8)[..., :3]


def with_padding(pixels: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return the H × W × 4 memory of a picture made by ``empty_padded``; None for others."""
    memory = pixels.base
    padded = (*pixels.shape[:2], 4)
    if not isinstance(memory, np.ndarray) or memory.dtype != np.uint8 or memory.shape != padded:
        return None
    same_start = memory.ctypes.data == pixels.ctypes.data
    same_order = memory.flags.c_contiguous and memory.strides == pixels.strides
    return memory if same_start and same_order else None
