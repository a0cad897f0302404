"""Pictures that reach the corners of the colour cube, which photographs hardly ever do.

Saturated colours drive activations farther than any photograph: ranges that hold on photographs
alone turn a red area grey. Calibration, the proof of every export and the gate all look at these.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.pictures import Picture

Tone = tuple[int, int, int]

CORNERS: tuple[Tone, ...] = tuple((r, g, b) for r, g, b in product((0, 255), repeat=3))
"""Black, white, the three primaries and what two of them make."""

BETWEEN: tuple[Tone, ...] = (
    *((255, 128, 0), (128, 255, 0), (0, 255, 128)),
    *((0, 128, 255), (128, 0, 255), (255, 0, 128)),
)
"""The saturated tones halfway between neighbouring corners: orange, lime, and so on."""

GREYS: tuple[Tone, ...] = tuple((level, level, level) for level in range(0, 256, 17))

TONES = (*CORNERS, *BETWEEN, *GREYS)

_FLAT, _SQUARE, _BAND = 12, 8, 6


def flat(tone: Tone, side: int = _FLAT) -> Picture:
    """Return a square of one tone, side × side × 3."""
    return np.full((side, side, 3), tone, np.uint8)


def chequer(one: Tone, other: Tone, square: int = _SQUARE, squares: int = 2) -> Picture:
    """Return a chequer board of squares × squares fields of ``square`` pixels, ``one`` first."""
    odd = np.indices((squares, squares)).sum(0) % 2
    fields = odd.repeat(square, 0).repeat(square, 1)[..., None]
    return np.where(fields, other, one).astype(np.uint8)


def colour_pictures(fixed_size: tuple[int, int] | None = None) -> list[Picture]:
    """Return the pictures that ranges hold on, and noise, which no range is widened for.

    Args:
        fixed_size: Their height and width, to which each is repeated and cut; None for their own.
    """
    pictures = [*range_pictures().values(), _noise()]
    return pictures if fixed_size is None else [repeated(one, *fixed_size) for one in pictures]


def range_pictures() -> dict[str, Picture]:
    """Return four small pictures by what they show: tones, chequers, gradients and text."""
    columns = {"tones": 6, "chequers": 7, "gradients": 1, "text": 1}
    return {name: _mosaic(parts, columns[name]) for name, parts in range_parts().items()}


def range_parts() -> dict[str, list[Picture]]:
    """Return the parts, of one size, that each of ``range_pictures`` is put together from."""
    return {
        "tones": [flat(tone) for tone in TONES],
        "chequers": [chequer(other, one) for one, other in combinations(CORNERS, 2)],
        "gradients": _gradients(),
        "text": _text(),
    }


def repeated(picture: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return a picture, H × W × 3, repeated and cut to a height and a width."""
    down, right = -(-height // picture.shape[0]), -(-width // picture.shape[1])
    return np.tile(picture, (down, right, 1))[:height, :width]


def _mosaic(tiles: Sequence[Picture], columns: int) -> Picture:
    rows = [np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _gradients() -> list[Picture]:
    """Return bands from black over a saturated tone to white, one for each tone."""
    tones = [tone for tone in (*CORNERS, *BETWEEN) if 0 in tone and max(tone)]
    places = np.linspace(0, 2, 64)
    bands = [
        np.stack([np.interp(places, (0, 1, 2), (0, level, 255)) for level in tone], axis=1)
        for tone in tones
    ]
    return [np.rint(band)[None].astype(np.uint8).repeat(_BAND, axis=0) for band in bands]


def _text() -> list[Picture]:
    """Return lines of text in saturated tones on saturated grounds."""
    font = ImageFont.load_default_imagefont()
    lines = []
    for ink, ground in ((1, 6), (4, 3), (0, 4), (7, 1), (2, 5)):
        line = Image.new("RGB", (64, 12), CORNERS[ground])
        ImageDraw.Draw(line).text((2, 0), "Red 255, 0", CORNERS[ink], font)
        lines.append(np.array(line))
    return lines


def _noise() -> Picture:
    """Return pixels of any tone beside pixels of corner tones."""
    random = np.random.default_rng(255)
    every = random.integers(0, 256, (32, 32, 3), np.uint8)
    corners = random.integers(0, 2, (32, 32, 3), np.uint8) * np.uint8(255)
    return np.hstack([every, corners])
