"""How runtimes add two quantized activations, and how they change the scale of an activation.

Neither operation is exact in integers, and each runtime approximates it in its own way. The sums of
two runtimes differ by at most one quantum, and only near ties. XNNPACK changes scales with 8-bit
multipliers.
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
"""Adds two activations: from the addends (real numbers that 8 bits hold), their two quantizations
and the quantization of the result to the sum, which the caller rounds to that quantization."""

Requantization = Callable[[Tensor, Quantization, Quantization], Tensor]
"""Changes the scale of an activation: from its values (real numbers that 8 bits hold), their
quantization and the new quantization to the values that the caller rounds to the new one."""


def exact_sum(
    addends: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Add in real numbers."""
    return addends[0] + addends[1]


def onnx_runtime_sum(
    addends: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Add as ONNX Runtime's QLinearAdd does on x86: in float32, with fused multiply-adds.

    Zero points are part of the sum, so that ties go to the even uint8 value.
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
    """Add as XNNPACK, TFLite's CPU kernels, does: with 21-bit multipliers, halves rounded up."""
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
    """Change a scale as XNNPACK does: by a ratio in whole 256ths, halves rounded up.

    XNNPACK takes ratios in [1/256, 128]. Other ratios go to LiteRT's own kernels, which are exact
    except for ties.
    """
    (ratio,) = _ratios([source], target)
    if not 2.0**-8 <= ratio <= 2.0**7:
        return value
    multiplier = int(np.rint(np.float32(256) * ratio))
    return (_quanta(value, source) * multiplier + 128).div(256).floor() * target.scale


@dataclass(frozen=True)
class Arithmetic:
    """How a runtime computes ``Add`` and ``Requantize`` nodes."""

    add: Addition = exact_sum
    requantize: Requantization = exact_requantization


EXACT = Arithmetic()
ARITHMETIC: Mapping[Format, Arithmetic] = {
    "onnx": Arithmetic(onnx_runtime_sum),
    "tflite": Arithmetic(xnnpack_sum, xnnpack_requantization),
}
"""The arithmetic of formats whose runtimes are not exact; other formats have ``EXACT``."""


def _ratios(sources: Sequence[Quantization], target: Quantization) -> NDArray[np.float32]:
    return np.array([one.scale for one in sources], np.float32) / np.float32(target.scale)


def _multiply_add(integers: Tensor, ratio: float, addend: Tensor) -> Tensor:
    """Multiply and add in one rounding to float32: float64 holds the product of 8 and 24 bits."""
    return (integers * ratio + addend.double()).float()


def _quanta(value: Tensor, quantization: Quantization) -> Tensor:
    return (value / quantization.scale).round()
