"""Training and evaluation pictures, decoded once into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError
from runtime.pictures.files import read_picture

Picture = NDArray[np.uint8]


def data_folder() -> Path | None:
    """Return the folder that the environment variable ``RESLITE_DATA`` names, or None if unset.

    The folder holds the standard pictures: ``train/``, ``valid/`` and the test sets.

    Raises:
        UserError: If the folder does not exist.
    """
    named = os.environ.get("RESLITE_DATA")
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise UserError(f"RESLITE_DATA={named}: no such folder; unset it or correct the path")
    return folder.resolve()


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


def no_margin(scale: int) -> int:
    """Return 0: windows and patches are the same."""
    return 0


def retoned(random: np.random.Generator, picture: Picture) -> Picture:
    """Return H × W × 3 uint8 pixels in other tones, each channel stretched or flattened on its own.

    Photographs of high contrast and of strong colours clip one channel or two, at one end or the
    other. What a distortion of contrast does, all channels stretched alike about the middle, leaves
    gaps between the levels; here noise below half a level fills them.
    """
    gain = random.uniform(0.9, 1.5) * random.uniform(0.85, 1.15, 3)
    pivot = random.uniform(32, 224, 3)
    levels = gain * (picture - pivot) + pivot + random.uniform(-0.5, 0.5, picture.shape)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


@dataclass(frozen=True)
class PatchSource:
    """Windows for patches, drawn at random from pictures in memory.

    Attributes:
        originals: The pictures.
        degraded: Degraded forms of the originals at every scale; empty if the trainer degrades
            patches itself.
        margin: Returns, for a scale, how many pixels a window extends beyond its patch on each
            side, for the degradation of patches.
        edge: Pixels by which the originals were extended at every edge, by mirroring.
        permute_colours: Permute the channels of every window at random.
        by_area: Draw pictures in proportion to their area; otherwise all equally often.
        any_phase: Draw patches at any pixel; otherwise at multiples of the scale.
        untouched: Share of the windows that nothing befell, 0 to 1: their degraded form is the
            original, in half of them with other tones (see ``retoned``).
    """

    originals: Sequence[Picture]
    degraded: Mapping[int, Sequence[Picture]] = field(default_factory=dict)
    margin: Callable[[int], int] = no_margin
    edge: int = 0
    permute_colours: bool = False
    by_area: bool = False
    any_phase: bool = False
    untouched: float = 0.0

    def windows(
        self, random: np.random.Generator, scale: int, patch: int, size: int
    ) -> list[Picture]:
        """Draw windows, each turned and flipped at random.

        Args:
            random: The generator; equal states draw equal windows.
            scale: Upscaling factor.
            patch: Side of the low-resolution patch in pixels.
            size: Number of windows.

        Returns:
            Windows of the originals, size × side × side × 3, uint8, with side = patch · scale + 2 ·
            margin. If there are degraded pictures, also their windows at the same places: size ×
            patch × patch × 3.
        """
        layers = [(self.originals, 1)]
        layers += [(self.degraded[scale], scale)] if self.degraded else []
        margin = self.margin(scale)
        side = patch * scale + 2 * margin
        drawn = [np.empty((size, side // by, side // by, 3), np.uint8) for _, by in layers]
        for index in range(size):
            which = self._draw_picture(random)
            top, left = (
                self.edge - margin + self._draw_place(random, length, scale, patch)
                for length in self._sides(which)
            )
            turns, flip = int(random.integers(4)), bool(random.integers(2))
            colours = random.permutation(3) if self.permute_colours else range(3)
            nothing_befell = bool(self.untouched) and bool(random.random() < self.untouched)
            for windows, (pictures, by) in zip(drawn, layers, strict=True):
                if nothing_befell:
                    pictures = self.originals
                rows, columns = (slice(one // by, (one + side) // by) for one in (top, left))
                window = pictures[which][rows, columns]
                window = np.rot90(window[:, ::-1] if flip else window, turns)
                # Plane by plane: several times faster than copying pixels of three bytes.
                for channel, colour in enumerate(colours):
                    windows[index, ..., channel] = window[..., colour]
            if nothing_befell and random.integers(2):
                window = retoned(random, drawn[0][index])
                for windows in drawn:
                    windows[index] = window
        return drawn

    def _draw_place(self, random: np.random.Generator, length: int, scale: int, patch: int) -> int:
        if self.any_phase:
            return int(random.integers(length - patch * scale + 1))
        return scale * int(random.integers(length // scale - patch + 1))

    def _draw_picture(self, random: np.random.Generator) -> int:
        if self.by_area:
            return int(np.searchsorted(self._area_shares, random.random(), side="right"))
        return int(random.integers(len(self.originals)))

    @cached_property
    def _area_shares(self) -> NDArray[np.float64]:
        """Cumulative share of the area of all pictures, up to and including each picture."""
        areas = np.cumsum([math.prod(self._sides(one)) for one in range(len(self.originals))])
        shares: NDArray[np.float64] = areas / areas[-1]
        return shares

    def _sides(self, which: int) -> tuple[int, int]:
        height, width = self.originals[which].shape[:2]
        return height - 2 * self.edge, width - 2 * self.edge
