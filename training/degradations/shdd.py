"""Spatially-heterogeneous distortions: every region of a picture is damaged in another way.

Kim, Ahn and Sohn, "Restoring Spatially-Heterogeneous Distortions using Mixture of Experts
Network", ACCV 2020, and chapter 7 of the thesis: *divide and distort*. A picture is chopped 2
(easy), 3 (moderate) or 4 times (difficult); each chop splits one of the present blocks by a random
horizontal or vertical line, and each block then gets one distortion of a strength that is uniform
in its range.

From the thesis: the levels, the five distortions, their ranges, the formula of the contrast and
the 12 versions per picture. Our reading: the block to split and the distortion are drawn
uniformly; a line leaves at least 8 pixels on either side where it can; blur continues a block by
reflection, so that blocks do not bleed into each other; the amplitude of the f-noise falls as 1/f,
and its scale is its standard deviation in levels of 255; the result is clipped and rounded to 8
bits.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError
from runtime.records import read_record, write_record
from training.data.pictures import PatchSource, Picture
from training.degradations.levels import Level

Kind = Literal["noise", "blur", "f-noise", "contrast", "identity"]

CHOPS: Mapping[Level, int] = {"easy": 2, "moderate": 3, "difficult": 4}

STRENGTHS: Mapping[Kind, tuple[float, float]] = {
    "noise": (0.005, 0.02),
    "blur": (1.0, 2.5),
    "f-noise": (6.0, 10.0),
    "contrast": (25.0, 40.0),
    "identity": (0.0, 0.0),
}
"""Least and greatest strength: the variance of white noise on pixels in [0, 1], the variance of
the Gaussian in square pixels, the deviation of f-noise in levels, the level C of the contrast."""

VERSIONS = 12
"""Distorted versions of each training picture."""

SCHEMA = 1
"""Of the explanations of distorted pictures."""

_LEAST_SIDE = 8
_KEPT_BYTES = 6 * 2**30  # of versions, in memory; what is beyond is distorted again when drawn

_Block = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """A block of a picture and what befell it.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
        kind: The distortion.
        strength: In the unit of ``STRENGTHS``.
    """

    top: int
    left: int
    height: int
    width: int
    kind: Kind
    strength: float

    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of the block."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Explanation:
    """What lies beside a distorted picture as JSON and explains it.

    Attributes:
        picture: File name of the original.
        level: How often it was chopped.
        seed: Of the data set.
        regions: They cover the picture exactly once.
    """

    picture: str
    level: Level
    seed: int
    regions: tuple[Region, ...]

    def write(self, path: Path) -> None:
        """Write the explanation as JSON."""
        write_record(path, self, SCHEMA)


def read_explanation(path: Path) -> Explanation:
    """Read what ``Explanation.write`` wrote.

    Raises:
        UserError: If the file is missing, damaged or of another schema version.
    """
    remedy = "run 'reslite make-dataset' again"
    try:
        return read_record(path, Explanation, SCHEMA, remedy)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy}") from error


@dataclass(frozen=True)
class Distorted:
    """A distorted picture and the regions that explain it; they cover it exactly once."""

    pixels: Picture
    regions: tuple[Region, ...]


def distort(picture: Picture, level: Level, seed: int, key: int | str, version: int) -> Distorted:
    """Divide and distort a picture.

    Args:
        picture: H × W × 3, uint8.
        level: How often it is chopped.
        seed: Of the data set.
        key: Of the picture in it: an index or a name.
        version: Which of its versions. Equal arguments give equal pixels.
    """
    number = zlib.crc32(key.encode()) if isinstance(key, str) else key
    random = np.random.default_rng((seed, number, version))
    regions = plan_regions(random, picture.shape[0], picture.shape[1], level)
    pixels = np.empty_like(picture)
    for region in regions:
        block = picture[region.window()].astype(np.float32)
        distorted = _DISTORTIONS[region.kind](block, region.strength, random)
        pixels[region.window()] = np.rint(np.clip(distorted, 0, 255))
    return Distorted(pixels, regions)


def plan_regions(
    random: np.random.Generator, height: int, width: int, level: Level
) -> tuple[Region, ...]:
    """Chop a picture into blocks and draw a distortion for each.

    A picture too small for all chops gets as many as it has room for.
    """
    blocks = [(0, 0, height, width)]
    for _ in range(CHOPS[level]):
        divisible = [index for index, block in enumerate(blocks) if max(block[2:]) > 1]
        if not divisible:
            break
        blocks += _halves(random, blocks.pop(int(random.choice(divisible))))
    kinds = list(STRENGTHS)
    regions = []
    for block in blocks:
        kind = kinds[int(random.integers(len(kinds)))]
        regions.append(Region(*block, kind, float(random.uniform(*STRENGTHS[kind]))))
    return tuple(regions)


def pink_noise(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return noise whose amplitude falls as 1/f: mean 0 and deviation 1 (0 for a single pixel).

    The spectrum is that of white noise divided by the frequency: random phases, and amplitudes
    that are 1/f on average.
    """
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequencies[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequencies
    field = np.fft.irfft2(spectrum, (height, width))
    deviation = field.std()
    return (field / deviation if deviation > 0 else field).astype(np.float32)


class ShddVersions(Sequence[Picture]):
    """The distorted versions of pictures, ``VERSIONS`` of each in turn, made when first drawn."""

    def __init__(self, pictures: Sequence[Picture], level: Level, seed: int) -> None:
        self._pictures, self._level, self._seed = pictures, level, seed
        self._kept: dict[int, Picture] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures) * VERSIONS

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if (kept := self._kept.get(index)) is not None:
            return kept
        which, version = divmod(index, VERSIONS)
        pixels = distort(self._pictures[which], self._level, self._seed, which, version).pixels
        with self._lock:  # several threads draw
            if index not in self._kept and self._bytes + pixels.nbytes <= _KEPT_BYTES:
                self._kept[index] = pixels
                self._bytes += pixels.nbytes
        return pixels


def patch_source(pictures: Sequence[Picture], level: Level, seed: int) -> PatchSource:
    """Return a source of windows of distorted pictures and of their originals."""
    originals = [picture for picture in pictures for _ in range(VERSIONS)]
    return PatchSource(originals, ShddVersions(pictures, level, seed))


def _halves(
    random: np.random.Generator, block: tuple[int, int, int, int]
) -> list[tuple[int, int, int, int]]:
    """Split a block by a horizontal or a vertical line, whichever it has room for."""
    top, left, height, width = block
    horizontal = bool(random.integers(2))
    if (height if horizontal else width) < 2 * _LEAST_SIDE:
        horizontal = height >= width
    extent = height if horizontal else width
    margin = min(_LEAST_SIDE, extent // 2)
    cut = int(random.integers(margin, extent - margin + 1))
    if horizontal:
        return [(top, left, cut, width), (top + cut, left, height - cut, width)]
    return [(top, left, height, cut), (top, left + cut, height, width - cut)]


def _noise(block: _Block, variance: float, random: np.random.Generator) -> _Block:
    deviation = np.float32(255 * math.sqrt(variance))
    return block + deviation * random.standard_normal(block.shape, np.float32)


def _blur(block: _Block, variance: float, random: np.random.Generator) -> _Block:
    radius = math.ceil(4 * math.sqrt(variance))
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-(offsets**2) / (2 * variance))
    taps = (taps / taps.sum()).astype(np.float32)
    for _ in range(2):
        padded = np.pad(block, ((radius, radius), (0, 0), (0, 0)), mode="symmetric")
        rows = block.shape[0]
        block = sum(
            (tap * padded[index : index + rows] for index, tap in enumerate(taps)),
            start=np.zeros_like(block),
        ).swapaxes(0, 1)
    return block


def _f_noise(block: _Block, deviation: float, random: np.random.Generator) -> _Block:
    planes = [pink_noise(random, *block.shape[:2]) for _ in range(block.shape[2])]
    return block + np.float32(deviation) * np.stack(planes, axis=2)


def _contrast(block: _Block, level: float, random: np.random.Generator) -> _Block:
    factor = np.float32(259 * (level + 255) / (255 * (259 - level)))
    return factor * (block - 128) + 128


def _identity(block: _Block, strength: float, random: np.random.Generator) -> _Block:
    return block


_DISTORTIONS: Mapping[Kind, Callable[[_Block, float, np.random.Generator], _Block]] = {
    "noise": _noise,
    "blur": _blur,
    "f-noise": _f_noise,
    "contrast": _contrast,
    "identity": _identity,
}
