"""How runtimes add two quantized activations, change a scale and bend an activation at zero.

None of these is exact in integers, and each runtime approximates it in its own way. The sums of
two runtimes differ by at most one quantum, and only near ties. XNNPACK changes scales and bends
activations with 8-bit multipliers. A quantum more or less in a few values of a hundred, in every
layer, was 0.29 of the picture's range at the output of one network (docs/lab/quantization.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.integers import is_maximum
from export.scales import Quantization
from runtime.formats import Format

Addition = Callable[[Sequence[Tensor], Sequence[Quantization], Quantization], Tensor]
"""Adds or subtracts two activations: from the operands (real numbers that 8 bits hold), their two
quantizations and that of the result to the result, which the caller rounds to its quantization."""

Requantization = Callable[[Tensor, Quantization, Quantization], Tensor]
"""Changes the scale of an activation: from its values (real numbers that 8 bits hold), their
quantization and the new quantization to the values that the caller rounds to the new one."""


@dataclass(frozen=True)
class Slopes:
    """The slopes of an activation below zero.

    Attributes:
        integers: As files hold them, for N × C × H × W, or one; whole numbers of ``scale``.
        scale: The worth of one.
    """

    integers: Tensor
    scale: float

    @property
    def real(self) -> Tensor:
        """The slopes as real numbers."""
        return self.integers * self.scale


Bend = Callable[[Tensor, Slopes, Quantization, Quantization], Tensor]
"""Multiplies what is below zero by a slope: from the values (real numbers that 8 bits hold), the
slopes, the quantization of the values and that of the result to the values that the caller rounds
to the latter."""


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


def exact_difference(
    operands: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Subtract the second from the first in real numbers."""
    return operands[0] - operands[1]


def xnnpack_difference(
    operands: Sequence[Tensor], sources: Sequence[Quantization], target: Quantization
) -> Tensor:
    """Subtract as XNNPACK does: it adds, with the second multiplier below zero."""
    return xnnpack_sum([operands[0], -operands[1]], sources, target)


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


def exact_bend(value: Tensor, slopes: Slopes, source: Quantization, target: Quantization) -> Tensor:
    """Compute max(x, 0) + slope · min(x, 0) in real numbers."""
    return value.clamp_min(0) + slopes.real * value.clamp_max(0)


def xnnpack_bend(
    value: Tensor, slopes: Slopes, source: Quantization, target: Quantization
) -> Tensor:
    """Bend as XNNPACK's leaky ReLU does: by ratios in whole 256ths, halves rounded up.

    It takes the ratios that it takes for a change of scale, below zero as well; others go to
    LiteRT's own kernel.
    """
    (ratio,) = _ratios([source], target)
    farthest = ratio * float(slopes.real.abs().max())
    if not (2.0**-8 <= ratio <= 2.0**7 and 2.0**-8 <= farthest <= 2.0**7):
        return litert_bend(value, slopes, source, target)
    quanta, above = _quanta(value, source), float(np.rint(np.float32(256) * ratio))
    below = (slopes.real * float(np.float32(256) * ratio)).round()
    bent = torch.where(quanta >= 0, quanta * above, quanta * below)
    return (bent + 128).div(256).floor() * target.scale


def litert_prelu(
    value: Tensor, slopes: Slopes, source: Quantization, target: Quantization
) -> Tensor:
    """Bend as files of ``write_tflite`` do: by XNNPACK's product and maximum where both fit.

    XNNPACK multiplies in integers, which one float32 factor turns into quanta.
    """
    if source != target or not is_maximum(slopes.real.float().numpy()):
        return litert_bend(value, slopes, source, target)
    quanta, scale = _quanta(value, source), np.float32(source.scale)
    factor = scale * np.float32(slopes.scale) / scale
    product = (quanta * slopes.integers).float().mul(float(factor)).round()
    return torch.maximum(quanta, product.to(value.dtype)) * target.scale


def litert_bend(
    value: Tensor, slopes: Slopes, source: Quantization, target: Quantization
) -> Tensor:
    """Bend as LiteRT's own kernels do: by 32-bit multipliers, rounding twice."""
    quanta = _quanta(value, source).long()
    ratio = float(np.float32(source.scale)) / float(np.float32(target.scale))
    above = _times(quanta, ratio)
    below = _times(quanta * slopes.integers.long(), ratio * slopes.scale)
    return torch.where(quanta >= 0, above, below).to(value.dtype) * target.scale


def _times(integers: Tensor, factor: float) -> Tensor:
    """Multiply by a factor of 31 bits; round to 31 bits fewer, then to whole numbers."""
    mantissa, exponent = math.frexp(factor)
    if exponent < -31:
        return torch.zeros_like(integers)
    multiplier = math.floor(mantissa * 2**31 + 0.5)
    product = integers * (multiplier << max(exponent, 0))
    high = (product + torch.where(product >= 0, 2**30, 1 - 2**30)).div(2**31, rounding_mode="trunc")
    shift = -min(exponent, 0)
    rest = high.remainder(1 << shift)
    half = ((1 << shift) - 1) // 2 + (high < 0).long()
    return high.div(1 << shift, rounding_mode="floor") + (rest > half).long()


@dataclass(frozen=True)
class Arithmetic:
    """How a runtime computes ``Add``, ``Sub``, ``Requantize`` and what bends at zero."""

    add: Addition = exact_sum
    subtract: Addition = exact_difference
    requantize: Requantization = exact_requantization
    leaky_relu: Bend = exact_bend
    prelu: Bend = exact_bend


EXACT = Arithmetic()
ARITHMETIC: Mapping[Format, Arithmetic] = {
    "onnx": Arithmetic(onnx_runtime_sum),
    "tflite": Arithmetic(
        xnnpack_sum, xnnpack_difference, xnnpack_requantization, xnnpack_bend, litert_prelu
    ),
}
"""The arithmetic of formats whose runtimes are not exact; other formats have ``EXACT``."""


def _ratios(sources: Sequence[Quantization], target: Quantization) -> NDArray[np.float32]:
    return np.array([one.scale for one in sources], np.float32) / np.float32(target.scale)


def _multiply_add(integers: Tensor, ratio: float, addend: Tensor) -> Tensor:
    """Multiply and add in one rounding to float32: float64 holds the product of 8 and 24 bits."""
    return (integers * ratio + addend.double()).float()


def _quanta(value: Tensor, quantization: Quantization) -> Tensor:
    return (value / quantization.scale).round()
