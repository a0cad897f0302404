"""The one table of scales, and its file.

Quantization is decided once, by ``quantize``; the simulator and all writers take their numbers from
the table and from ``export.integers``, so that they cannot disagree. Activations are 8-bit with one
scale and zero point per tensor.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from runtime.manifest import Calibration
from runtime.records import read_record, to_text, write_record

SCHEMA = 2
"""Version of the file. Kernels are named as in the captured graph; in version 1, as in rewrites."""

_SMALLEST_SPAN = 1e-5
"""Ranges narrower than this count as dead and get a span of 1.0; runtimes reject scales near zero,
and float16 rounds them to zero."""


@dataclass(frozen=True)
class Quantization:
    """Scale and zero point of an 8-bit activation: real = scale · (q − zero_point).

    Attributes:
        scale: Size of one quantum.
        zero_point: The int8 value of real zero, in [−128, 127]; in uint8 it is 128 more.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf or not -128 <= self.zero_point <= 127:
            raise ValueError(
                f"scale {self.scale} and zero point {self.zero_point} found; expected a positive "
                "scale and a zero point in [-128, 127]"
            )

    @classmethod
    def of_range(cls, low: float, high: float) -> Quantization:
        """Return the quantization whose 256 values span [low, high] and hit zero exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        span = high - low if high - low > _SMALLEST_SPAN else 1.0
        scale = float(np.float32(span / 255))
        return cls(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


PIXELS = Quantization(float(np.float32(1 / 255)), -128)
"""The quantization of the picture and the restored picture: one quantum is one pixel level."""


SIGMOID = Quantization(1 / 256, -128)
"""The quantization of a sigmoid's output, because TFLite's int8 LOGISTIC has no other."""


Gain = float | tuple[float, ...]
"""The factor of an activation: one for all channels, or one per channel."""


@dataclass(frozen=True)
class Overflow:
    """The channels of an activation that reach beyond its range (``export.rewrites.overflow``).

    Attributes:
        limit: Where the range ends, after gains.
        channels: Their numbers as convolutions read them, in order. What is named n times reaches
            up to n + 1 limits.
    """

    limit: float
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.inf:
            raise ValueError(f"a limit of {self.limit} found, a positive number expected")


@dataclass(frozen=True)
class ScaleTable:
    """The quantization of every activation; all names are those of the captured graph.

    Attributes:
        model: Model the table was made for.
        scale: The model's upscaling factor.
        weights_sha256: SHA-256 of the weights the table was made for.
        method: How ranges were chosen, for people to read.
        activations: The quantization of each activation; input and output are always ``PIXELS``.
        requantized: Inputs of concatenations that change their scale, as (value, Concat output)
            pairs; concatenations that are not named share one scale with all their inputs.
        calibration: The calibration pictures.
        gains: The factor of each activation whose factor is not 1 (see ``export.rewrites.gains``);
            ``activations`` holds the scales after the multiplication.
        overflow: The activations of which some channels reach beyond the range. Roundings and
            corrections count the channels that are added for them, gains do not.
        roundings: By kernel, which of its weights are rounded up and which down: one text per form
            of the kernel in the int8 form of the network, usually one (see
            ``export.rewrites.roundings``). After tuning, by how many quanta each weight is above
            the integer below it. Weights of other kernels go to the nearest integer.
        corrections: By the output of a convolution, the values added to its bias, one per output
            channel (see ``quantize.bias_correction``).
    """

    model: str
    scale: int
    weights_sha256: str
    method: str
    activations: Mapping[str, Quantization]
    requantized: tuple[tuple[str, str], ...]
    calibration: Calibration
    gains: Mapping[str, Gain] = field(default_factory=dict)
    overflow: Mapping[str, Overflow] = field(default_factory=dict)
    roundings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    corrections: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value, gain in self.gains.items():
            if not np.all(np.greater(gain, 0)):
                raise ValueError(f"gains of {value}: {gain} found, positive numbers expected")

    def of(self, value: str) -> Quantization:
        """Return the quantization of an activation by its name in the captured graph.

        Raises:
            UserError: If the table does not cover the activation.
        """
        found = self.activations.get(value)
        if found is None:
            raise UserError(
                f"scales of {self.model} ×{self.scale} do not cover '{value}'; "
                "they belong to another network: run 'reslite quantize' again"
            )
        return found

    @property
    def sha256(self) -> str:
        """SHA-256 of everything the table says."""
        return hashlib.sha256(to_text(self, SCHEMA).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the table as readable JSON."""
        write_record(path, self, SCHEMA)


def read_scale_table(path: Path) -> ScaleTable:
    """Read a table written by ``ScaleTable.write``.

    Raises:
        UserError: If the file is missing, damaged or of another schema version.
    """
    try:
        return read_record(path, ScaleTable, SCHEMA, "run 'reslite quantize' again")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no such table of scales; run 'reslite quantize' first") from error
