"""The golden pair of an app: a picture and what a file makes of it, with the difference allowed.

The picture is larger than a tile in both directions, with odd sides, so that halos and edges count;
its patches of pure colours show swapped channels and values that wrap around instead of clamping.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import runtime
from export.parity import TOLERANCE, restore_with
from export.sources.source import Source
from runtime.formats import FORMATS
from runtime.manifest import Artifact
from runtime.tiling import restore_tiled
from training.data.pictures import Picture

_BEYOND = (21, 38)  # pixels beyond one tile
_PATCH = 16  # pixels
_DEVIATIONS = 8  # standard deviations of half arithmetic's error that one of a million pixels takes


@dataclass(frozen=True)
class Golden:
    """A golden pair.

    Attributes:
        picture: H × W × 3, uint8.
        expected: scale·H × scale·W × 3, uint8.
        tolerance: Largest difference from ``expected`` allowed, in levels.
    """

    picture: Picture
    expected: Picture
    tolerance: int


def golden_of(
    source: Source, artifact: Artifact, folder: Path, window: tuple[int, int], picture: Picture
) -> Golden:
    """Restore a picture with a file, or with its network where the file does not run here.

    Args:
        source: The network.
        artifact: The file.
        folder: The folder of the file.
        window: Height and width of the app's tiles.
        picture: H × W × 3, continued by reflection or cut to a little more than a tile.
    """
    if FORMATS[artifact.format].runs_here():
        return golden_here(artifact, folder, window, picture)
    whole = golden_picture(picture, window)
    restore = restore_with(source.module, source.graph.sides)
    restored = np.clip(restore(whole.astype(np.float32) / np.float32(255)), 0, 1)
    return Golden(whole, np.rint(restored * 255).astype(np.uint8), tolerance_of(artifact))


def golden_here(
    artifact: Artifact, folder: Path, window: tuple[int, int], picture: Picture
) -> Golden:
    """Restore a picture with a file that runs here; arguments as in ``golden_of``."""
    whole = golden_picture(picture, window)
    with runtime.open(folder / artifact.file) as session:
        return Golden(whole, restore_tiled(session, whole), tolerance_of(artifact))


def golden_picture(picture: Picture, window: tuple[int, int]) -> Picture:
    """Return a picture of a little more than a tile, with patches of the eight pure colours."""
    height, width = (side + beyond for side, beyond in zip(window, _BEYOND, strict=True))
    missing = [max(0, new - old) for new, old in zip((height, width), picture.shape, strict=False)]
    whole = np.pad(picture, (*((0, one) for one in missing), (0, 0)), mode="reflect")
    whole = np.ascontiguousarray(whole[:height, :width])
    for number, colour in enumerate(itertools.product((0, 255), repeat=3)):
        whole[:_PATCH, number * _PATCH : (number + 1) * _PATCH] = colour
    return whole


def tolerance_of(artifact: Artifact) -> int:
    """Return by how many levels a device may differ from the expected picture, after rounding.

    Files that run here: as much as their proof allows, or has measured where that is more. Others
    are compared with the network in float32: in float16 they may be off by what half arithmetic
    costs, as the manifest states it.
    """
    if artifact.float16 is not None and not FORMATS[artifact.format].runs_here():
        deviation = 255 * 10 ** (-artifact.float16.psnr_in_half / 20)
        return math.floor(_DEVIATIONS * deviation) + 1
    allowed = TOLERANCE[artifact.precision]
    if artifact.precision == "int8":
        return math.floor(255 * allowed)  # between results in whole levels
    return math.floor(255 * max(allowed, artifact.measured.max_abs_diff or 0)) + 1
