"""Patches in saturated colours, which photographs hardly ever hold, drawn at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.pictures import Picture
from training.degradations import bicubic

_SQUARES = (1, 2, 3, 4, 6, 8, 12)


def saturated_patches(random: np.random.Generator, size: int, side: int) -> NDArray[np.uint8]:
    """Draw areas, chequer boards, gradients, shapes and noise in one tone or two.

    Args:
        random: The generator; equal states draw equal patches.
        size: Number of patches.
        side: Their side in pixels.

    Returns:
        size × side × side × 3. Half of the tones are corners of the colour cube.
    """
    kinds = (_area, _chequer, _chequer, _gradient, _shapes, _noise)
    return np.stack([kinds[random.integers(len(kinds))](random, side) for _ in range(size)])


def _tone(random: np.random.Generator) -> NDArray[np.int_]:
    """Return a corner of the cube, a tone on one of its edges, or any."""
    kind, tone = random.integers(4), 255 * random.integers(0, 2, 3)
    if kind == 2:
        tone[random.integers(3)] = random.integers(256)
    return random.integers(0, 256, 3) if kind == 3 else tone


def _area(random: np.random.Generator, side: int) -> Picture:
    return np.full((side, side, 3), _tone(random), np.uint8)


def _chequer(random: np.random.Generator, side: int) -> Picture:
    square = _SQUARES[random.integers(len(_SQUARES))]
    places = np.indices((side, side)) + random.integers(0, 2 * square, (2, 1, 1))
    return _in_two_tones(random, (places // square).sum(0) % 2 == 0)


def _gradient(random: np.random.Generator, side: int) -> Picture:
    one, other = _tone(random), _tone(random)
    row = np.rint(one + np.linspace(0, 1, side)[:, None] * (other - one)).astype(np.uint8)
    band = np.broadcast_to(row, (side, side, 3))
    return band if random.integers(2) else band.swapaxes(0, 1)


def _shapes(random: np.random.Generator, side: int) -> Picture:
    """Return blots with curved edges: smooth noise, above and below its middle."""
    grains = random.integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    smooth = bicubic.resize(grains, side, side)
    if random.integers(2):
        return np.where(smooth > 127, 255, 0).astype(np.uint8)
    return _in_two_tones(random, smooth[..., 0] > 127)


def _noise(random: np.random.Generator, side: int) -> Picture:
    return _in_two_tones(random, random.random((side, side)) < random.random())


def _in_two_tones(random: np.random.Generator, first: NDArray[np.bool_]) -> Picture:
    return np.where(first[..., None], _tone(random), _tone(random)).astype(np.uint8)
