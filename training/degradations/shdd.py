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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from runtime.errors import UserError
from runtime.records import read_record, write_record
from training.data.pictures import Picture
from training.degradations.degradation import (
    RANDOM_VERSIONS,
    Degradation,
    DegradationStep,
    Degraded,
    Region,
)
from training.degradations.levels import Level, ScoredLevel

CHOPS: Mapping[ScoredLevel, int] = {"easy": 2, "moderate": 3, "difficult": 4, "untouched": 0}

STRENGTHS: Mapping[str, tuple[float, float]] = {
    "noise": (0.005, 0.02),
    "blur": (1.0, 2.5),
    "f-noise": (6.0, 10.0),
    "contrast": (25.0, 40.0),
    "identity": (0.0, 0.0),
}
"""Least and greatest strength: the variance of white noise on pixels in [0, 1], the variance of
the Gaussian in square pixels, the deviation of f-noise in levels, the level C of the contrast."""

SCHEMA = 1
"""Schema of the explanations of distorted pictures."""

_LEAST_SIDE = 8

_Block = NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """The JSON file beside a distorted picture that explains its distortions.

    Attributes:
        picture: File name of the original.
        level: How often the picture was chopped.
        seed: Seed of the data set.
        regions: Regions that cover the picture exactly once.
    """

    picture: str
    level: Level
    seed: int
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        if unknown := [one.kind for one in self.regions if one.kind not in STRENGTHS]:
            raise ValueError(f"{unknown[0]!r}: expected a kind of {', '.join(STRENGTHS)}")

    def write(self, path: Path) -> None:
        """Write the explanation as JSON."""
        write_record(path, self, SCHEMA)


def read_explanation(path: Path) -> Explanation:
    """Read the file that ``Explanation.write`` wrote.

    Raises:
        UserError: If the file is missing, damaged or of another schema version.
    """
    remedy = "run 'reslite make-dataset' again"
    try:
        return read_record(path, Explanation, SCHEMA, remedy)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy}") from error


def kinds_of(level: ScoredLevel) -> tuple[str, ...]:
    """Return the kinds of regions that pictures of a level have, in the order of tables."""
    return ("identity",) if level == "untouched" else tuple(STRENGTHS)


def distort(picture: Picture, level: ScoredLevel, random: np.random.Generator) -> Degraded:
    """Divide and distort an H × W × 3 uint8 picture, chopped as often as the level says."""
    regions = plan_regions(random, picture.shape[0], picture.shape[1], level)
    pixels = np.empty_like(picture)
    for region in regions:
        block = picture[region.window()].astype(np.float32)
        distorted = _DISTORTIONS[region.kind](block, region.strength, random)
        pixels[region.window()] = np.rint(np.clip(distorted, 0, 255))
    return Degraded(pixels, regions)


def plan_regions(
    random: np.random.Generator, height: int, width: int, level: ScoredLevel
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
    kinds = kinds_of(level)
    regions = []
    for block in blocks:
        kind = kinds[int(random.integers(len(kinds)))]
        regions.append(Region(*block, kind, float(random.uniform(*STRENGTHS[kind]))))
    return tuple(regions)


def pink_noise(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return noise whose amplitude falls as 1/f: mean 0 and deviation 1 (0 for a single pixel).

    The spectrum of white noise is divided by the frequency: phases are random, amplitudes are 1/f
    on average.
    """
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequencies[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequencies
    field = np.fft.irfft2(spectrum, (height, width))
    deviation = field.std()
    return (field / deviation if deviation > 0 else field).astype(np.float32)


def _halves(
    random: np.random.Generator, block: tuple[int, int, int, int]
) -> list[tuple[int, int, int, int]]:
    """Split a block by a random horizontal or vertical line, where its sides allow a choice."""
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


_DISTORTIONS: Mapping[str, Callable[[_Block, float, np.random.Generator], _Block]] = {
    "noise": _noise,
    "blur": _blur,
    "f-noise": _f_noise,
    "contrast": _contrast,
    "identity": _identity,
}


def _degradation(level: ScoredLevel) -> Degradation:
    def degrade(picture: Picture, scale: int, random: np.random.Generator) -> Degraded:
        return distort(picture, level, random)

    return Degradation(f"shdd-{level}", degrade, versions=RANDOM_VERSIONS, kinds=kinds_of(level))


DEGRADATIONS: Mapping[ScoredLevel, Degradation] = {level: _degradation(level) for level in CHOPS}


class Shdd(DegradationStep):
    """Every region is damaged in another way (chapter 7 of the thesis)."""

    kind: Literal["shdd"] = "shdd"
    level: Level = Field(description="pictures are divided 2, 3 or 4 times")

    def degradation(self) -> Degradation:
        """Return the distortions of the level."""
        return DEGRADATIONS[self.level]
