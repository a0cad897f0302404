"""Half arithmetic against loops over numpy's float16, number by number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.graph import Graph, Node
from export.half import LARGEST_HALF, HalfInterpreter

Half = NDArray[np.float16]


def test_the_largest_number_is_numpys() -> None:
    assert float(np.finfo(np.float16).max) == LARGEST_HALF


def _graph(kernel: NDArray[np.float32], bias: NDArray[np.float32], node: Node) -> Graph:
    constants = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return Graph((node,), constants)


def _convolution(groups: int) -> Node:
    inputs = ("image", "kernel", "bias")
    return Node("Conv", "layer", inputs, ("restored_image",), {"groups": groups})


def _looped(image: Half, kernel: Half, bias: Half, groups: int) -> tuple[Half, float]:
    """Return a convolution in float16, and its largest partial sum after a channel."""
    outputs, inside, size, _ = kernel.shape
    reach = size // 2
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
    made = np.zeros((outputs, *image.shape[1:]), np.float16)
    largest = 0.0
    for output, row, column in np.ndindex(*made.shape):
        first, total = output // (outputs // groups) * inside, np.float16(0)
        for channel in range(inside):
            for down, right in np.ndindex(size, size):
                seen = padded[first + channel, row + down, column + right]
                total = np.float16(total + np.float16(kernel[output, channel, down, right] * seen))
            largest = max(largest, abs(float(total)))
        made[output, row, column] = np.float16(total + bias[output])
        largest = max(largest, abs(float(made[output, row, column])))
    return made, largest


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 3]),
    size=st.sampled_from([1, 3]),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    magnitude=st.sampled_from([0.01, 1.0, 300.0]),
)
def test_a_convolution_adds_up_as_a_loop_over_float16_does(
    seed: int, groups: int, size: int, height: int, width: int, magnitude: float
) -> None:
    random = np.random.default_rng(seed)
    image = random.random((3, height, width)).astype(np.float32)
    kernel = (magnitude * random.normal(size=(3, 3 // groups, size, size))).astype(np.float32)
    bias = (magnitude * random.normal(size=3)).astype(np.float32)
    rounded = [one.astype(np.float16) for one in (image, kernel, bias)]
    expected, largest = _looped(*rounded, groups)

    run = HalfInterpreter(_graph(kernel, bias, _convolution(groups)))
    found = run(torch.from_numpy(image[None]))

    np.testing.assert_array_equal(found[0].numpy(), expected.astype(np.float32))
    assert run.largest_sums == {"restored_image": largest}


def test_a_transposed_convolution_adds_up_over_its_channels() -> None:
    random = np.random.default_rng(0)
    image = random.random((3, 3, 4)).astype(np.float16)
    kernel = random.normal(size=(3, 5, 2, 2)).astype(np.float16)
    bias = random.normal(size=5).astype(np.float16)
    expected = np.zeros((5, 6, 8), np.float16)
    for output, row, column in np.ndindex(*expected.shape):
        for channel in range(3):
            weight = kernel[channel, output, row % 2, column % 2]
            product = np.float16(weight * image[channel, row // 2, column // 2])
            expected[output, row, column] += product
        expected[output, row, column] += bias[output]
    inputs = ("image", "kernel", "bias")
    attributes = {"stride": 2, "groups": 1, "crops": (0, 0, 0, 0)}
    node = Node("ConvTranspose", "layer", inputs, ("restored_image",), attributes)

    run = HalfInterpreter(_graph(kernel.astype(np.float32), bias.astype(np.float32), node))

    found = run(torch.from_numpy(image.astype(np.float32))[None])
    np.testing.assert_array_equal(found[0].numpy(), expected.astype(np.float32))


def test_with_float32_sums_only_the_result_is_rounded() -> None:
    # In float16, 2048 + 1 is 2048; what the sum comes to in float32 fits float16.
    kernel = np.array([2048, 1, 1], np.float32).reshape(1, 3, 1, 1)
    graph = _graph(kernel, np.zeros(1, np.float32), _convolution(1))
    white = torch.ones(1, 3, 1, 1)
    assert float(HalfInterpreter(graph, "float16")(white)) == 2048
    assert float(HalfInterpreter(graph, "float32")(white)) == 2050


@pytest.mark.parametrize(("last", "reached"), [(-60000.0, 120000.0), (60000.0, 180000.0)])
def test_a_sum_that_overflows_on_the_way_is_infinite_and_told(last: float, reached: float) -> None:
    kernel = np.array([60000, 60000, last], np.float32).reshape(1, 3, 1, 1)
    graph = _graph(kernel, np.zeros(1, np.float32), _convolution(1))
    run = HalfInterpreter(graph)
    assert not torch.isfinite(run(torch.ones(1, 3, 1, 1))).any()
    assert run.largest_sums == {"restored_image": pytest.approx(reached, rel=1e-3)}


def test_weights_and_pictures_are_rounded_first() -> None:
    kernel = np.array([1 / 3, 0, 0], np.float32).reshape(1, 3, 1, 1)
    graph = _graph(kernel, np.zeros(1, np.float32), _convolution(1))
    expected = np.float16(np.float16(1 / 3) * np.float16(0.7))
    assert float(HalfInterpreter(graph)(torch.full((1, 3, 1, 1), 0.7))) == float(expected)
