"""Parity: the difference between a file's outputs and those of the network it was made from."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.colours import colour_pictures
from runtime.errors import UserError
from runtime.formats import Format, Precision
from runtime.session import Session
from runtime.sides import ANY_SIDES, Sides
from runtime.tiling import restore_tiled

Restore = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From a picture, H × W × 3 in [0, 1], to the restored picture, clamped or not."""

TOLERANCE: Mapping[Precision, float] = {"float32": 1e-5, "float16": 2e-3, "int8": 2.01 / 255}
"""Largest difference allowed: floats from the network, int8 from its simulation (2 quanta)."""

COREML_INT8_TOLERANCE = 3.01 / 255
"""Core ML computes in float16 between quantized activations, which can move a value further."""

COREAI_TOLERANCE: Mapping[Precision, float] = {"float16": 5e-3, "int8": 8.01 / 255}
"""Core AI rounds float16 twice where others round once, between a convolution and its bias: up to
0.0036 of CARN-M ×4. Its int8 files are computed in float32 between quantized activations. Sums that
are nearly half a quantum then round to either side, as in every runtime without integer kernels,
and later layers enlarge a quantum: to six in the worst value of CARN-M, to seven of mepsnet-s.
Networks that amplify more may stray as much farther. Single operators are exact; so that a wrong
one shows, tests compare each of them with the simulation to two quanta."""

PARITY_SIZES = ((37, 51), (8, 8), (1, 1))
_TILE = 16


class ParityError(UserError):
    """A file's output differs from its reference by more than is allowed.

    Attributes:
        file: Name of the file.
        difference: Largest absolute difference found, in [0, 1].
        allowed: Largest absolute difference allowed.
    """

    def __init__(self, file: str, difference: float, allowed: float) -> None:
        self.file, self.difference, self.allowed = file, difference, allowed
        super().__init__(
            f"{file}: differs from its source by {difference:.3g}, at most {allowed:.3g} is "
            "allowed; please report this network"
        )


def parity_pictures(
    fixed_size: tuple[int, int] | None = None, halo: int | None = None
) -> list[NDArray[np.float32]]:
    """Return seeded pictures of smooth colours with noise, and pictures in saturated colours.

    All are H × W × 3, float32 in [0, 1].

    Args:
        fixed_size: The only height and width that a file takes; None for several odd sizes.
        halo: The halo of a file that is run in tiles, for one picture larger than a tile and none
            in saturated colours; or None.
    """
    random = np.random.default_rng(7)
    pictures = []
    sizes: Sequence[tuple[int, int]] = [fixed_size] if fixed_size else PARITY_SIZES
    if halo is not None:
        least = fixed_size or (2 * halo + _TILE, 0)
        sizes = [(least[0] + 24, max(24, least[1]))]
    for height, width in sizes:
        ramps = np.linspace(0, 1, height)[:, None, None] * np.linspace(0.2, 1, width)[:, None]
        noise = random.random((height, width, 3))
        pictures.append((0.7 * ramps + 0.3 * noise).astype(np.float32))
    if halo is not None:
        return pictures
    colours = colour_pictures(fixed_size)
    return [*pictures, *(one.astype(np.float32) / np.float32(255) for one in colours)]


def in_levels(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture in [0, 1] as 8 bits hold it."""
    levels: NDArray[np.float32] = np.rint(picture * np.float32(255)) / np.float32(255)
    return levels


def restore_with(module: nn.Module, sides: Sides = ANY_SIDES) -> Restore:
    """Return a function that restores one picture with a torch module.

    Args:
        module: The network.
        sides: The heights and widths it takes; other pictures are reflected, as the runtime does.
    """

    def restore(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            image = sides.reflected(picture).transpose(2, 0, 1)[None]
            restored = module(torch.from_numpy(image.copy()))
            return restored_part(restored, picture, image)

    return restore


def restored_part(
    restored: Tensor, picture: NDArray[Any], image: NDArray[Any]
) -> NDArray[np.float32]:
    """Return what a network made of a picture, without what it made of reflected pixels.

    Args:
        restored: 1 × 3 × scale·H' × scale·W'.
        picture: H × W × 3.
        image: The reflected picture, 1 × 3 × H' × W'.
    """
    scale = restored.shape[2] // image.shape[2]
    height, width = (scale * side for side in picture.shape[:2])
    part: NDArray[np.float32] = restored[0, :, :height, :width].permute(1, 2, 0).numpy()
    return part


def remembered(restore: Restore) -> Restore:
    """Return ``restore``, but each picture is restored once, however often it is asked for."""
    known: dict[tuple[tuple[int, ...], bytes], NDArray[np.float32]] = {}

    def restore_once(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        key = picture.shape, hashlib.sha256(picture.tobytes()).digest()
        if key not in known:
            known[key] = restore(picture)
        return known[key]

    return restore_once


def in_tiles(session: Session) -> Restore:
    """Return a function that restores one picture tile by tile."""
    tile = None if session.fixed_size else _TILE
    return lambda picture: restore_tiled(session, picture, tile)


def largest_difference(
    restore: Restore, reference: Restore, pictures: Sequence[NDArray[np.float32]]
) -> float:
    """Return the largest absolute difference between the outputs, both clamped to [0, 1]."""
    return max(
        float(np.abs(np.clip(restore(p), 0, 1) - np.clip(reference(p), 0, 1)).max())
        for p in pictures
    )


def amplification(module: nn.Module, sides: Sides = ANY_SIDES) -> float:
    """Return how much more a network amplifies rounding than those that ``TOLERANCE`` was made for.

    It is measured by what float32 itself is off from float64, of which four times the most may fit
    the tolerance of float32: runtimes sum in another order. Generative networks reach several times
    that; for others the result is 1.
    """
    exact = restore_with(copy.deepcopy(module).double(), sides)

    def restore(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return exact(picture.astype(np.float64)).astype(np.float32)

    off = largest_difference(restore_with(module, sides), restore, parity_pictures())
    return max(1.0, 4 * off / TOLERANCE["float32"])


@dataclass(frozen=True)
class Original:
    """The network that files are compared with; what was computed once is remembered.

    Attributes:
        restore: Restores one picture.
        amplification: See the function of this name.
    """

    restore: Restore
    amplification: Callable[[], float]

    @classmethod
    def of(cls, module: nn.Module, sides: Sides = ANY_SIDES) -> Original:
        """Return the network that a module is, for pictures of any size."""
        restore = remembered(restore_with(module, sides))
        return cls(restore, cache(lambda: amplification(module, sides)))


def check_parity(
    name: str,
    kind: Format,
    precision: Precision,
    difference: float,
    amplified: Callable[[], float] = lambda: 1.0,
    rounds: bool = False,
) -> None:
    """Compare a file's difference from its reference with the tolerance of format and precision.

    Args:
        name: The file.
        kind: Its format.
        precision: Its precision.
        difference: Its largest difference.
        amplified: Returns the factor of the tolerance; asked only if the difference exceeds it.
        rounds: Whether the file rounds its output to 8 bits, which its reference does not.

    Raises:
        ParityError: If ``difference`` is larger than the tolerance, or not a number.
    """
    allowed = TOLERANCE[precision]
    if kind == "coreai":
        allowed = COREAI_TOLERANCE.get(precision, allowed)
    elif (kind, precision) == ("coreml", "int8"):
        allowed = COREML_INT8_TOLERANCE
    half = 0.5 / 255 if rounds else 0.0
    if not difference <= allowed + half:
        allowed *= amplified()
    allowed += half
    # ``difference > allowed`` would be false for NaN.
    if not difference <= allowed:
        raise ParityError(name, difference, allowed)
