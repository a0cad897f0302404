"""The one table of scales, and its file.

Quantization is decided once, by ``quantize``; the simulator and the writers all take their numbers
from here and from ``export.integers``, so that they cannot disagree. Activations are 8-bit with one
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
"""Version of a table's file; version 1 knew kernels by what rewrites called them."""

_SMALLEST_SPAN = 1e-5
"""Of activations that say something. Those of dead channels are zero at any scale, while runtimes
refuse scales that are next to nothing, and float16 rounds them to it."""


@dataclass(frozen=True)
class Quantization:
    """Scale and zero point of an 8-bit activation: real = scale · (q − zero_point).

    Attributes:
        scale: Size of one quantum.
        zero_point: The int8 value of real zero, in [−128, 127]. As uint8 it is 128 more.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf or not -128 <= self.zero_point <= 127:
            raise ValueError(f"scale {self.scale} and zero point {self.zero_point} fit no 8 bits")

    @classmethod
    def of_range(cls, low: float, high: float) -> Quantization:
        """Return the quantization whose 256 values span [low, high] and hit zero exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        span = high - low if high - low > _SMALLEST_SPAN else 1.0
        scale = float(np.float32(span / 255))
        return cls(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


PIXELS = Quantization(float(np.float32(1 / 255)), -128)
"""Of the picture and the restored picture: one quantum is one of the 256 levels of a pixel."""


SIGMOID = Quantization(1 / 256, -128)
"""Of a sigmoid's result: what TFLite's int8 LOGISTIC returns, always."""


Gain = float | tuple[float, ...]
"""Of all channels of an activation, or of each."""


@dataclass(frozen=True)
class ScaleTable:
    """The quantization of every activation; all names are those of the captured graph.

    Attributes:
        model: Model the table was made for.
        scale: Its upscaling factor.
        weights_sha256: Of the weights it was made for.
        method: How ranges were chosen, for people.
        activations: By activation; input and output are always ``PIXELS``.
        requantized: Inputs of concatenations that change their scale, as (value, Concat output)
            pairs; concatenations that are not named share one scale with all their inputs.
        calibration: The pictures behind the numbers.
        gains: By what activations are multiplied, where that is not 1, one factor for all channels
            or one for each (see ``export.rewrites.gains``); their scales are those after it.
        roundings: By kernel, which of its weights are rounded up and which down, one text for each
            form that it has in the int8 form of the network, as a rule one (see
            ``export.rewrites.roundings``). Weights of other kernels go to the nearest integer.
        corrections: By the output of a convolution, what is added to its bias, per output channel
            (see ``quantize.bias_correction``).
    """

    model: str
    scale: int
    weights_sha256: str
    method: str
    activations: Mapping[str, Quantization]
    requantized: tuple[tuple[str, str], ...]
    calibration: Calibration
    gains: Mapping[str, Gain] = field(default_factory=dict)
    roundings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    corrections: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value, gain in self.gains.items():
            if not np.all(np.greater(gain, 0)):
                raise ValueError(f"gains of {value}: {gain} found, positive numbers expected")

    def of(self, value: str) -> Quantization:
        """Return the quantization of an activation by its name in the captured graph.

        Raises:
            UserError: If the table does not cover it.
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
