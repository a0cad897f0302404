"""What runtimes make of sums of two quantized activations, and of changes of scale.

Neither has an exact form in integers; each runtime has its own. Sums lie within a quantum of each
other, ties aside they are the same. XNNPACK changes scales by multipliers of eight bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.scales import Quantization
from runtime.formats import Format

Addition = Callable[[Sequence[Tensor], Sequence[Quantization], Quantization], Tensor]
"""From two addends, real numbers that 8 bits hold, and their quantizations to their sum, which is
to be rounded to the third."""

Requantization = Callable[[Tensor, Quantization, Quantization], Tensor]
"""From a value, real numbers that 8 bits hold, its quantization and the one it gets, to what is to
be rounded to the latter."""


def exact_sum(
    addends: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Add in real numbers."""
    return addends[0] + addends[1]


def onnx_runtime_sum(
    addends: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Add as ONNX Runtime's QLinearAdd does on x86: float32, fused, zero points included.

    A tie goes to the even one of the unsigned integers that the file holds.
    """
    zero, *zeros = (one.zero_point + 128 for one in (target, *sources))
    ratios = [float(ratio) for ratio in _ratios(sources, target)]
    integers = [
        _quanta(addend, source).double() + offset
        for addend, source, offset in zip(addends, sources, zeros, strict=True)
    ]
    offsets = torch.tensor(zeros, dtype=torch.float64)
    constant = zero - _multiply_add(offsets[0], ratios[0], (offsets[1] * ratios[1]).float())
    total = _multiply_add(integers[1], ratios[1], constant)
    total = _multiply_add(integers[0], ratios[0], total)
    return total.round().sub(zero).to(addends[0].dtype) * target.scale


def xnnpack_sum(
    addends: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Add as XNNPACK, TFLite's kernels on CPUs, does: multipliers of 21 bits, halves go up."""
    ratios = _ratios(sources, target)
    unit = 2.0 ** (int(np.frexp(ratios.max())[1]) - 21)
    first, second = (
        _quanta(addend, source) * round(float(ratio) / unit)
        for addend, source, ratio in zip(addends, sources, ratios, strict=True)
    )
    return (first + second).mul(unit).add(0.5).floor() * target.scale


def exact_requantization(value: Tensor, source: Quantization, target: Quantization) -> Tensor:
    """Keep the real numbers."""
    return value


def xnnpack_requantization(value: Tensor, source: Quantization, target: Quantization) -> Tensor:
    """Change a scale as XNNPACK does: by whole 256ths, halves go up.

    A ratio of 0.135 becomes 35/256, 1.3 % more. LiteRT's own kernels, to which ratios go that
    XNNPACK does not take, are exact but for ties.
    """
    (ratio,) = _ratios([source], target)
    if not 2.0**-8 <= ratio <= 2.0**7:
        return value
    multiplier = int(np.rint(np.float32(256) * ratio))
    return (_quanta(value, source) * multiplier + 128).div(256).floor() * target.scale


@dataclass(frozen=True)
class Arithmetic:
    """What a runtime makes of ``Add`` and ``Requantize`` nodes."""

    add: Addition = exact_sum
    requantize: Requantization = exact_requantization


EXACT = Arithmetic()
ARITHMETIC: Mapping[Format, Arithmetic] = {
    "onnx": Arithmetic(onnx_runtime_sum),
    "tflite": Arithmetic(xnnpack_sum, xnnpack_requantization),
}
"""Of the formats whose runtimes are not exact; that of any other is ``EXACT``."""


def _ratios(sources: Sequence[Quantization], target: Quantization) -> NDArray[np.float32]:
    return np.array([one.scale for one in sources], np.float32) / np.float32(target.scale)


def _multiply_add(integers: Tensor, ratio: float, addend: Tensor) -> Tensor:
    """Multiply and add in one rounding to float32: float64 holds the product of 8 and 24 bits."""
    return (integers * ratio + addend.double()).float()


def _quanta(value: Tensor, quantization: Quantization) -> Tensor:
    return (value / quantization.scale).round()
