"""The integers of weights and biases, and sums of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from export.graph import Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.scales import Quantization

_kernels = arrays(
    np.float32,
    array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.floats(-4, 4, width=32),
)


@given(kernel=_kernels, axis=st.sampled_from([0, 1]))
def test_a_quantized_kernel_is_near_the_real_one(kernel: NDArray[np.float32], axis: int) -> None:
    scales, integers = weight_scales(kernel, axis), quantized_weight(kernel, axis)
    assert scales.shape == (kernel.shape[axis],) and (scales > 0).all()
    assert integers.dtype == np.int8 and integers.min() >= -127
    shape = [-1 if index == axis else 1 for index in range(4)]
    real = integers * scales.astype(np.float64).reshape(shape)
    assert (np.abs(real - kernel) <= 0.5001 * scales.reshape(shape)).all()


@given(kernel=_kernels)
def test_the_largest_weight_of_a_channel_uses_the_whole_range(kernel: NDArray[np.float32]) -> None:
    largest = np.abs(kernel).max(axis=(1, 2, 3))
    used = np.abs(quantized_weight(kernel).astype(int)).max(axis=(1, 2, 3))
    # Weights below 1e-30 have no scale that is a normal float32 number; they count as none.
    assert (used[largest > max(1e-30, 1e-3 * largest.max())] == 127).all()
    assert (used[largest == 0] == 0).all()


def test_a_kernel_done_by_hand() -> None:
    kernel = np.float32([[1.27, -0.63], [-0.0254, 0.0127]]).reshape(2, 2, 1, 1)
    assert weight_scales(kernel) == pytest.approx([0.01, 0.0002])
    assert quantized_weight(kernel).reshape(2, 2).tolist() == [[127, -63], [-127, 64]]


@given(kernel=_kernels, data=st.data())
def test_a_quantized_bias_is_near_the_real_one(kernel: NDArray[np.float32], data: Any) -> None:
    bias = data.draw(arrays(np.float32, kernel.shape[0], elements=st.floats(-4, 4, width=32)))
    source = Quantization(0.02, 5)
    scales, integers = bias_scales(kernel, source), quantized_bias(bias, kernel, source)
    assert np.allclose(scales, weight_scales(kernel).astype(np.float64) * 0.02, rtol=1e-12)
    assert integers.dtype == np.int32
    fits = np.abs(bias / scales) < 2**31 - 1
    assert (np.abs(integers * scales - bias)[fits] <= 0.5001 * scales[fits]).all()


def test_a_bias_that_fits_no_32_bits_is_saturated() -> None:
    kernel, source = np.full((2, 1, 1, 1), 1e-6, np.float32), Quantization(1e-6, 0)
    found = quantized_bias(np.float32([3, -3]), kernel, source)
    assert found.tolist() == [2**31 - 1, -(2**31 - 1)]


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_integer_arithmetic_gives_the_sums_of_the_rounded_numbers(data: Any) -> None:
    """Accumulate as an integer kernel does; torch convolves the rounded reals beside it."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    source = Quantization.of_range(-data.draw(st.floats(0, 2)), data.draw(st.floats(0.1, 2)))
    kernel = random.normal(0, 0.2, (3, 4, 3, 3)).astype(np.float32)
    bias = random.normal(0, 0.2, 3).astype(np.float32)
    pixels = random.integers(-128, 128, (1, 4, 5, 5))
    integers = torch.nn.functional.conv2d(
        torch.from_numpy(pixels - source.zero_point).double(),
        torch.from_numpy(quantized_weight(kernel)).double(),
        torch.from_numpy(quantized_bias(bias, kernel, source)).double(),
    )
    scales = torch.from_numpy(bias_scales(kernel, source)).reshape(1, 3, 1, 1)
    rounded = quantized_weight(kernel) * weight_scales(kernel).reshape(3, 1, 1, 1)
    real = torch.nn.functional.conv2d(
        torch.from_numpy(source.scale * (pixels - source.zero_point)).float(),
        torch.from_numpy(rounded.astype(np.float32)),
        torch.from_numpy(bias),
    )
    torch.testing.assert_close((integers * scales).float(), real, atol=1e-3, rtol=1e-4)


def test_kernels_of_transposed_convolutions_count_outputs_on_their_second_axis() -> None:
    attributes = {"stride": 2, "groups": 1, "crops": (0, 0, 0, 0)}
    transposed = Node("ConvTranspose", "up", ("image", "w", "b"), ("large",), attributes)
    plain = Node("Conv", "conv", ("image", "w", "b"), ("features",), {"groups": 1})
    assert (output_axis(transposed), output_axis(plain)) == (1, 0)
