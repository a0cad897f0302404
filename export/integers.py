"""The integers of weights and biases, as every int8 file holds them.

Weights are symmetric int8 in [−127, 127] with one scale per output channel, biases int32 with the
scale of the weights times that of the input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.graph import Array, Node
from export.scales import Quantization


def output_axis(node: Node) -> int:
    """Return the axis of a kernel that counts output channels."""
    return 1 if node.op == "ConvTranspose" else 0


# Relative to the largest weight of a kernel: channels whose weights are all smaller hardly matter,
# and with a scale as small as such weights the bias would not fit int32.
_SMALLEST_CHANNEL = 1e-4


def weight_scales(kernel: Array, axis: int = 0) -> NDArray[np.float32]:
    """Return one scale per output channel, with which the channel's largest weight becomes ±127.

    Channels whose weights are all zero, or tiny beside those of other channels, get a larger scale,
    so that their biases fit int32.

    Args:
        kernel: As ``Graph.constants`` holds it.
        axis: The axis of output channels.
    """
    others = tuple(index for index in range(kernel.ndim) if index != axis)
    largest = np.abs(kernel).max(axis=others)
    # Below 1e-30 scales would not be normal float32 numbers.
    most = largest.max() if largest.max() > 1e-30 else 1.0
    chosen = np.where(largest > 0, np.maximum(largest, _SMALLEST_CHANNEL * most), most)
    scales: NDArray[np.float32] = (chosen / 127).astype(np.float32)
    return scales


def quantized_weight(kernel: Array, axis: int = 0) -> NDArray[np.int8]:
    """Return the kernel as int8 multiples of ``weight_scales``, in [−127, 127]."""
    shape = [-1 if index == axis else 1 for index in range(kernel.ndim)]
    scaled: Array = kernel / weight_scales(kernel, axis).reshape(shape)
    return np.clip(np.rint(scaled), -127, 127).astype(np.int8)


def slope_scale(slopes: Array) -> NDArray[np.float32]:
    """Return the one scale of a PRelu's slopes, as an array: the largest slope becomes ±127."""
    return weight_scales(slopes[None])


def is_maximum(slopes: Array) -> bool:
    """Tell whether a PRelu with these slopes is max(x, slope · x), as slopes of at most one are.

    XNNPACK multiplies by scales of 2⁻¹⁶ and more; smaller slopes go another way.
    """
    return bool(slopes.max() <= 1) and float(slope_scale(slopes)[0]) >= 2.0**-15


def quantized_slopes(slopes: Array) -> NDArray[np.int8]:
    """Return the int8 slopes that belong to ``slope_scale``."""
    integers: NDArray[np.int8] = quantized_weight(slopes[None])[0]
    return integers


def rounded_slopes(slopes: Array) -> Array:
    """Return the real numbers that ``quantized_slopes`` stand for."""
    return quantized_slopes(slopes) * slope_scale(slopes)


def constant_quantization(constant: Array) -> Quantization:
    """Return the quantization of a constant that is added or multiplied: symmetric, one scale."""
    return Quantization(float(weight_scales(constant.reshape(1, -1))[0]), 0)


def quantized_constant(constant: Array) -> NDArray[np.int8]:
    """Return the int8 values that belong to ``constant_quantization``."""
    integers: NDArray[np.int8] = quantized_weight(constant.reshape(1, -1)).reshape(constant.shape)
    return integers


def rounded_constant(constant: Array) -> Array:
    """Return the real numbers that ``quantized_constant`` stand for."""
    return quantized_constant(constant) * np.float32(constant_quantization(constant).scale)


def bias_scales(kernel: Array, source: Quantization, axis: int = 0) -> NDArray[np.float64]:
    """Return one scale per element of a bias: the weight scale times the scale of the input."""
    return weight_scales(kernel, axis).astype(np.float64) * source.scale


def quantized_bias(
    bias: Array, kernel: Array, source: Quantization, axis: int = 0
) -> NDArray[np.int32]:
    """Return the bias as int32 multiples of ``bias_scales``, saturated."""
    limit = 2.0**31 - 1
    rounded = np.rint(bias / bias_scales(kernel, source, axis))
    return np.clip(rounded, -limit, limit).astype(np.int32)
