"""The contract of degradations: how a picture is damaged before a network restores it."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from training.configuration import Entry
from training.data.pictures import Picture

RANDOM_VERSIONS = 12
"""Degraded versions of each training picture, where the degradation is random."""


@dataclass(frozen=True)
class Region:
    """A block of a picture and its distortion.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
        kind: The distortion.
        strength: Strength in the unit of the kind.
    """

    top: int
    left: int
    height: int
    width: int
    kind: str
    strength: float

    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of the block."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Degraded:
    """A degraded picture.

    Attributes:
        pixels: H × W × 3, uint8.
        regions: Regions that cover the picture exactly once, if the degradation differs between
            regions; otherwise empty.
    """

    pixels: Picture
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class WindowDegradation:
    """The same degradation computed on patches, on the training device.

    Attributes:
        margin: Returns, for a scale, how many pixels beyond a patch its degraded pixels depend on.
        degrade: Turns N × side × side × 3 uint8 windows and the scale into N × patch × patch × 3
            uint8; side = patch · scale + 2 · margin.
    """

    margin: Callable[[int], int]
    degrade: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Degradation:
    """How a picture is damaged before a network restores it.

    Attributes:
        name: Name in recipes.
        degrade: Degrades a picture, H × W × 3 uint8, whose sides are multiples of the scale. Equal
            states of the generator give equal pixels.
        reduces: Whether degraded pictures are smaller by the scale; otherwise the size stays and
            the scale is 1.
        versions: Degraded versions of each training picture; 1 where nothing is random.
        kinds: Kinds of regions, in the order that tables list them.
        of_windows: The same degradation for patches, if it is not random; None if training cuts
            its patches from degraded pictures.
    """

    name: str
    degrade: Callable[[Picture, int, np.random.Generator], Degraded]
    reduces: bool = False
    versions: int = 1
    kinds: tuple[str, ...] = ()
    of_windows: WindowDegradation | None = None


class DegradationStep(Entry):
    """A step of a recipe's degradation, listed in ``training.degradations.kinds``."""

    @abstractmethod
    def degradation(self) -> Degradation:
        """Return what the step does to pictures."""


def version_random(seed: int, key: int | str, version: int) -> np.random.Generator:
    """Return the generator that one version of a picture is degraded with.

    Args:
        seed: Seed of the set of pictures.
        key: Index or name of the picture in the set.
        version: Number of the picture's version.
    """
    number = zlib.crc32(key.encode()) if isinstance(key, str) else key
    return np.random.default_rng((seed, number, version))
