"""Kernels on chosen integers: writers round to the integers that a table names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from export.graph import Array, Graph, Node
from export.integers import quantized_weight, weight_scales
from export.rewrites.roundings import (
    Flags,
    as_offsets,
    as_text,
    in_quanta,
    rounded_kernel,
    with_roundings,
)
from runtime.errors import UserError

_kernels = arrays(
    np.float32,
    array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.floats(-4, 4, width=32),
)


@given(st.integers(1, 40).flatmap(lambda count: arrays(np.bool_, (count, 2, 1, 1))))
def test_flags_survive_being_text(up: Flags) -> None:
    assert np.array_equal(as_offsets(as_text(up), up.shape), up)


@given(arrays(np.int8, st.tuples(st.integers(2, 40), st.just(2), st.just(1), st.just(1))))
def test_bytes_survive_being_text(offsets: NDArray[np.int8]) -> None:
    found = as_offsets(as_text(offsets), offsets.shape)
    assert found.dtype == np.int8
    assert np.array_equal(found, offsets)


@pytest.mark.parametrize("offset", [-100, -1, 0, 1, 2, 100])
def test_the_byte_of_a_single_weight_is_no_flag(offset: int) -> None:
    offsets = np.full((1, 1, 1, 1), offset, np.int8)
    assert as_offsets(as_text(offsets), offsets.shape).item() == offset


@pytest.mark.parametrize("up", [False, True])
def test_the_flag_of_a_single_weight_is_no_byte(up: bool) -> None:
    flags = np.full((1, 1, 1, 1), up)
    assert as_offsets(as_text(flags), flags.shape).item() == up


def test_weights_move_by_the_quanta_that_bytes_name() -> None:
    kernel = np.array([127, 10.5, -3.5, 0], np.float32).reshape(1, 4, 1, 1)
    offsets = np.array([0, 3, -2, 1], np.int8).reshape(kernel.shape)

    assert rounded_kernel(kernel, offsets).ravel().tolist() == [127, 13, -6, 1]


def test_text_is_bits_the_first_the_highest() -> None:
    assert as_text(np.array([True] + [False] * 6 + [True, True])) == "gYA="  # 0x81, 0x80


@given(_kernels, st.integers(0, 2**32 - 1))
def test_a_kernel_on_chosen_integers_is_rounded_to_them(kernel: Array, seed: int) -> None:
    largest = np.abs(kernel).max()
    assume(largest == 0 or largest > 1e-30)  # less counts as zero, which only goes to zero
    quanta = in_quanta(kernel)
    up = np.random.default_rng(seed).random(kernel.shape) < 0.5
    up &= np.ceil(quanta) > quanta
    up = np.where(np.abs(quanta) > 126.5, np.rint(quanta) > np.floor(quanta), up)

    rounded = rounded_kernel(kernel, up)

    assert np.array_equal(quantized_weight(rounded), (np.floor(quanta) + up).astype(np.int8))
    ends = np.abs(quanta).max((1, 2, 3)) > 126.5
    assert np.allclose(weight_scales(rounded)[ends], weight_scales(kernel)[ends], rtol=1e-6)


def _graph(kernel: Array) -> Graph:
    node = Node("Conv", "layer", ("image", "kernel", "bias"), ("restored_image",), {"groups": 1})
    constants = {"kernel": kernel, "bias": np.zeros(3, np.float32)}
    return Graph((node,), constants)


def test_only_named_kernels_are_rounded() -> None:
    kernel = np.full((3, 3, 1, 1), 0.301, np.float32)
    kernel[:, 0] = 1.27
    graph = _graph(kernel)

    up = with_roundings(graph, {"kernel": (as_text(np.ones(kernel.shape, bool)),)})

    assert with_roundings(graph, {}) == graph
    (rounded,) = (array for name, array in up.constants.items() if name != "bias")
    assert quantized_weight(rounded)[0].ravel().tolist() == [127, 31, 31]


@pytest.mark.parametrize(
    ("roundings", "words"),
    [
        ({"other": ("gYA=",)}, "kernel 'other': roundings of 1 forms for 0"),
        ({"kernel": ("gYA=", "gYA=")}, "kernel 'kernel': roundings of 2 forms for 1"),
        ({"kernel": ("gQ==",)}, "1 bytes for a kernel of 9 weights"),
        ({"kernel": ("gYCA",)}, "3 bytes for a kernel of 9 weights"),
        ({"kernel": ("no base64",)}, "kernel 'kernel'"),
    ],
)
def test_a_table_of_another_network_is_refused(
    roundings: dict[str, tuple[str, ...]], words: str
) -> None:
    with pytest.raises(UserError, match=f"{words}.*reslite quantize"):
        with_roundings(_graph(np.ones((3, 3, 1, 1), np.float32)), roundings)
