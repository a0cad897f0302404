"""Colours of fully transparent pixels, which are invisible but read by a network.

Editors usually leave black there, which would bleed into visible pixels. The colours are therefore
replaced by the nearest visible colours before a picture is restored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.pictures.samples import BAND_ROWS, Samples


def with_spread_colours(pixels: Samples, alpha: Samples) -> Samples:
    """Replace the colours of fully transparent pixels by colours of visible pixels around them.

    A transparent pixel takes the mean colour of the visible pixels in the smallest block of 2×2,
    4×4, 8×8, … pixels around it that has any (the pull and push of Gortler et al., "The
    Lumigraph", SIGGRAPH 1996, section 3.4.2, with boxes).

    Args:
        pixels: H × W × C.
        alpha: H × W × 1, 0 where a pixel is transparent.

    Returns:
        H × W × C of the same type; ``pixels`` itself where all or no pixels are transparent.
    """
    hidden = alpha[..., 0] == 0
    if hidden.all() or not hidden.any():
        return pixels
    filled = _filled(*_halved_bands(pixels, ~hidden))
    spread = pixels.copy()
    for top in range(0, len(pixels), BAND_ROWS):  # even, so that no block of 2×2 is cut
        band = slice(top, top + BAND_ROWS)
        blocks = filled[top // 2 : top // 2 + BAND_ROWS // 2]
        colours = _doubled(blocks, hidden[band].shape)
        spread[band][hidden[band]] = np.rint(colours[hidden[band]]).astype(pixels.dtype)
    return spread


def _halved_bands(
    pixels: Samples, visible: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the sums and counts of visible colours in blocks of 2×2, a few rows at a time."""
    bands = [slice(top, top + BAND_ROWS) for top in range(0, len(pixels), BAND_ROWS)]
    halves = [
        _halved(pixels[one].astype(np.float32) * visible[one, :, None], visible[one, :, None])
        for one in bands
    ]
    sums, counts = (np.concatenate(part) for part in zip(*halves, strict=True))
    return sums, counts


def _filled(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean colour of every block, or of a larger block if no pixel is visible."""
    known = counts > 0
    means = (sums / np.maximum(counts, 1)).astype(np.float32)
    if known.all():
        return means
    # All means have the same weight whatever their count: nearness decides, not area.
    coarser = _filled(*_halved(means * known, known))
    return np.where(known, means, _doubled(coarser, counts.shape[:2]))


def _halved(
    sums: NDArray[np.float32], counts: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sum blocks of 2×2; odd sides are padded with zeros."""
    odd = ((0, sums.shape[0] % 2), (0, sums.shape[1] % 2), (0, 0))
    return _block_sums(np.pad(sums, odd)), _block_sums(np.pad(counts.astype(np.float32), odd))


def _block_sums(values: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = values[0::2] + values[1::2]
    summed: NDArray[np.float32] = rows[:, 0::2] + rows[:, 1::2]
    return summed


def _doubled(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    return values.repeat(2, axis=0).repeat(2, axis=1)[: size[0], : size[1]]
