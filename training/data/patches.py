"""Patches, cut at random from pictures in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.augmentations.augmentation import Augmentation
from training.data.pictures import Picture


def no_margin(scale: int) -> int:
    """Return 0: windows and patches are the same."""
    return 0


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
        augment: What is done to every window, one after another.
        by_area: Draw pictures in proportion to their area; otherwise all equally often.
        any_phase: Draw patches at any pixel; otherwise at multiples of the scale.
    """

    originals: Sequence[Picture]
    degraded: Mapping[int, Sequence[Picture]] = field(default_factory=dict)
    margin: Callable[[int], int] = no_margin
    edge: int = 0
    augment: Sequence[Augmentation] = ()
    by_area: bool = False
    any_phase: bool = False

    def windows(
        self, random: np.random.Generator, scale: int, patch: int, size: int
    ) -> list[Picture]:
        """Draw windows, each augmented on its own.

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
            places = []
            for pictures, by in layers:
                rows, columns = (slice(one // by, (one + side) // by) for one in (top, left))
                places.append(pictures[which][rows, columns])
            for augmentation in self.augment:
                places = augmentation.apply(random, places)
            for windows, place in zip(drawn, places, strict=True):
                # Plane by plane: several times faster than copying pixels of three bytes.
                for channel in range(3):
                    windows[index, ..., channel] = place[..., channel]
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
