"""The page's icon: a disc, coarse on its left and smooth on its right."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_GROUND, _DISC = (11, 110, 95), (236, 246, 243)
_RADIUS = 0.34  # of a side, within what every phone's mask leaves
_BLOCKS = 12
_FINE = 3  # samples of a pixel along each axis


def icon(side: int) -> bytes:
    """Return the icon as a PNG of ``side`` × ``side`` pixels."""
    smooth = _disc(side * _FINE)
    coarse = np.kron(
        _disc(_BLOCKS * 8).reshape(_BLOCKS, 8, _BLOCKS, 8).mean((1, 3)), np.ones((8, 8))
    )
    left = Image.fromarray((255 * coarse).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BOX
    )
    right = Image.fromarray((255 * smooth).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BOX
    )
    mask = right.copy()
    mask.paste(left.crop((0, 0, side // 2, side)), (0, 0))
    picture = Image.new("RGB", (side, side), _GROUND)
    picture.paste(_DISC, (0, 0, side, side), mask)
    target = io.BytesIO()
    picture.save(target, "PNG", optimize=True)
    return target.getvalue()


def _disc(side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    axis = (np.arange(side) + 0.5) / side - 0.5
    inside: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (
        np.hypot(axis[:, None], axis[None, :]) < _RADIUS
    ).astype(np.float64)
    return inside
