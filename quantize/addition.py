"""What runtimes make of the sum of two quantized activations.

An addition of integers with three different scales has no exact form; each runtime has its own.
Results lie within a quantum of each other, ties aside they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.scales import Quantization
from runtime.manifest import Format

Addition = Callable[[Sequence[Tensor], Sequence[Quantization], Quantization], Tensor]
"""From two addends, real numbers that 8 bits hold, and their quantizations to their sum, which is
to be rounded to the third."""


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


ADDITIONS: Mapping[Format, Addition] = {
    "onnx": onnx_runtime_sum,
    "tflite": xnnpack_sum,
    "coreml": exact_sum,
}


def _ratios(sources: Sequence[Quantization], target: Quantization) -> NDArray[np.float32]:
    return np.array([one.scale for one in sources], np.float32) / np.float32(target.scale)


def _multiply_add(integers: Tensor, ratio: float, addend: Tensor) -> Tensor:
    """Multiply and add in one rounding to float32: float64 holds the product of 8 and 24 bits."""
    return (integers * ratio + addend.double()).float()


def _quanta(value: Tensor, quantization: Quantization) -> Tensor:
    return (value / quantization.scale).round()
