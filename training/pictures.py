"""Training and evaluation pictures, decoded once into memory.

``RESLITE_DATA`` names the folder with ``train/``, ``valid/`` and the test sets; without it
``../shared/data`` is used where that exists.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError
from runtime.picture_files import PICTURE_SUFFIXES, read_picture
from training import bicubic

Picture = NDArray[np.uint8]


def data_folder() -> Path | None:
    """Return the folder of the standard pictures, or None where there is none."""
    named = os.environ.get("RESLITE_DATA")
    folder = Path(named) if named else Path("../shared/data")
    if named and not folder.is_dir():
        raise UserError(f"RESLITE_DATA={named}: no such folder; unset it or correct the path")
    return folder.resolve() if folder.is_dir() else None


def picture_paths(folder: Path) -> list[Path]:
    """Return the picture files directly in ``folder``, sorted by name.

    Raises:
        UserError: If the folder does not exist or holds no picture.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return paths


def read_rgb(path: Path) -> Picture:
    """Read one picture as H × W × 3 uint8; grey is spread over three channels, alpha dropped."""
    pixels = read_picture(path).pixels
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def read_all(paths: Sequence[Path]) -> list[Picture]:
    """Read pictures, several at once, in the order of ``paths``."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(read_rgb, paths))


@dataclass(frozen=True)
class PatchSource:
    """Aligned low- and high-resolution patches drawn at random from pictures in memory.

    Attributes:
        high: The pictures.
        low: Their reductions, ``low[scale][index]``.
        permute_colours: Put the channels of every patch pair in a random order.
        by_area: Draw from a picture as often as it is large; otherwise from all equally often.
    """

    high: Sequence[Picture]
    low: dict[int, Sequence[Picture]]
    permute_colours: bool = False
    by_area: bool = False

    @classmethod
    def from_pictures(cls, pictures: Sequence[Picture], scales: Sequence[int]) -> PatchSource:
        """Reduce every picture to every scale with MATLAB's bicubic."""

        def reductions(picture: Picture) -> list[Picture]:
            return [
                bicubic.reduce(bicubic.crop_to_multiple(picture, scale), scale) for scale in scales
            ]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = list(pool.map(reductions, pictures))
        low = zip(scales, zip(*rows, strict=True), strict=True)
        return cls(pictures, dict(low))

    def batch(
        self, random: np.random.Generator, scale: int, patch: int, size: int
    ) -> tuple[Picture, Picture]:
        """Draw ``size`` patch pairs, each turned and flipped at random.

        Args:
            random: Where the draws come from; the same generator state draws the same batch.
            scale: Upscaling factor.
            patch: Side of the low-resolution patch in pixels.
            size: Patches in the batch.

        Returns:
            Low (size × patch × patch × 3) and high (size × patch·scale × patch·scale × 3), uint8.
        """
        low = np.empty((size, patch, patch, 3), np.uint8)
        high = np.empty((size, patch * scale, patch * scale, 3), np.uint8)
        for index in range(size):
            which = self._draw_picture(random)
            small, large = self.low[scale][which], self.high[which]
            top = int(random.integers(small.shape[0] - patch + 1))
            left = int(random.integers(small.shape[1] - patch + 1))
            turns, flip = int(random.integers(4)), bool(random.integers(2))
            colours = random.permutation(3) if self.permute_colours else range(3)
            small = _oriented(_window(small, top, left, patch), turns, flip)
            large = _oriented(_window(large, top * scale, left * scale, patch * scale), turns, flip)
            # Plane by plane: several times as fast as pixels of three bytes.
            for channel, colour in enumerate(colours):
                low[index, ..., channel] = small[..., colour]
                high[index, ..., channel] = large[..., colour]
        return low, high

    def _draw_picture(self, random: np.random.Generator) -> int:
        if self.by_area:
            return int(np.searchsorted(self._area_shares, random.random(), side="right"))
        return int(random.integers(len(self.high)))

    @cached_property
    def _area_shares(self) -> NDArray[np.float64]:
        """Of all pictures up to each one."""
        areas = np.cumsum([picture.shape[0] * picture.shape[1] for picture in self.high])
        shares: NDArray[np.float64] = areas / areas[-1]
        return shares


def _window(picture: Picture, top: int, left: int, side: int) -> Picture:
    return picture[top : top + side, left : left + side]


def _oriented(patch: Picture, turns: int, flip: bool) -> Picture:
    return np.rot90(patch[:, ::-1] if flip else patch, turns)
