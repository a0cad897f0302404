"""Chains of reshapes and transposes: told apart by what they move, in any spelling."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from export.capture.movements import (
    PLANAR,
    TO_PLANAR,
    Movement,
    movement_of,
    origins,
    recognize_movements,
    result_shape,
)

Shape = tuple[int, ...]


def _graph(*steps: Shape | str) -> ir.Graph:
    """Return a graph of reshapes (to a shape) and transposes (``"perm=…"``) of an operand x."""
    shape, *others = steps
    value = ir.val("x", ir.DataType.FLOAT, shape)
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="chain")
    array = np.empty(shape)
    for step in others:
        if isinstance(step, str):
            perm = tuple(map(int, step.removeprefix("perm=")))
            array = array.transpose(perm)
            node = ir.node("Transpose", [value], {"perm": perm})
        else:
            array = array.reshape(step)
            target = ir.val(f"shape{len(graph)}", const_value=ir.tensor(array.shape))
            graph.register_initializer(target)
            node = ir.node("Reshape", [value, target])
        graph.append(node)
        value = node.outputs[0]
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT
    value.name = "y"
    graph.outputs.append(value)
    return graph


def _movement(*steps: Shape | str) -> Movement | None:
    graph = _graph(*steps)
    return movement_of(graph.inputs[0], list(graph))


def _moved(movement: Movement, values: NDArray[Any]) -> NDArray[Any]:
    """Return values moved, each looked up where the movement takes it from."""
    steps = movement.steps(values.shape)
    places = origins(values.shape, steps, np.arange(values.size))
    return values.ravel()[places].reshape(result_shape(values.shape, steps))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # PyTorch, with and without the batch, and with the rows moved first.
        (
            [(1, 12, 4, 5), (1, 3, 2, 2, 4, 5), "perm=014253", (1, 3, 8, 10)],
            Movement(PLANAR, "DepthToSpace", 2, "CRD"),
        ),
        (
            [(1, 12, 4, 5), (3, 2, 2, 4, 5), "perm=03142", (1, 3, 8, 10)],
            Movement(PLANAR, "DepthToSpace", 2, "CRD"),
        ),
        (
            [
                *((1, 12, 4, 5), (1, 6, 2, 4, 5), "perm=01342", (1, 6, 4, 10)),
                *((1, 3, 2, 4, 10), "perm=01324", (1, 3, 8, 10)),
            ],
            Movement(PLANAR, "DepthToSpace", 2, "CRD"),
        ),
        # TensorFlow, whose channels are last; the second hands out planes.
        (
            [(1, 4, 5, 27), (1, 4, 5, 3, 3, 3), "perm=013245", (1, 12, 15, 3)],
            Movement(TO_PLANAR, "DepthToSpace", 3, "DCR", (0, 2, 3, 1)),
        ),
        (
            [(1, 4, 5, 12), (4, 5, 2, 2, 3), "perm=40213", (1, 3, 8, 10)],
            Movement(TO_PLANAR, "DepthToSpace", 2, "DCR"),
        ),
        # Pixels to channels.
        (
            [(1, 3, 8, 10), (1, 3, 4, 2, 5, 2), "perm=013524", (1, 12, 4, 5)],
            Movement(PLANAR, "SpaceToDepth", 2, "CRD"),
        ),
        ([(1, 8, 4, 5), (8, 20), (1, 8, 4, 5)], Movement()),
        ([(1, 4, 5, 8), (20, 8), "perm=10", (1, 8, 4, 5)], Movement(TO_PLANAR)),
        # Channels in another order, a picture on its side, shuffles that mix rows and columns.
        ([(1, 8, 4, 5), (1, 2, 4, 4, 5), "perm=02134", (1, 8, 4, 5)], None),
        ([(1, 8, 4, 5), (8, 4, 5), "perm=021", (1, 8, 5, 4)], None),
        ([(1, 12, 4, 5), (1, 3, 2, 2, 4, 5), "perm=014352", (1, 3, 8, 10)], None),
        ([(1, 12, 4, 5), (1, 3, 2, 2, 4, 5), "perm=015243", (1, 3, 10, 8)], None),
    ],
)
def test_a_chain_is_known_by_what_it_moves(
    steps: list[Shape | str], expected: Movement | None
) -> None:
    assert _movement(*steps) == expected


@settings(deadline=None, max_examples=40)
@given(
    depth=st.integers(1, 5),
    block=st.integers(2, 4),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
)
def test_shuffles_are_those_of_torch(depth: int, block: int, height: int, width: int) -> None:
    values = torch.arange(depth * block**2 * height * width).reshape(1, -1, height, width)
    spread = F.pixel_shuffle(values, block)
    to_space = Movement(op="DepthToSpace", block=block, mode="CRD")
    to_depth = Movement(op="SpaceToDepth", block=block, mode="CRD")
    np.testing.assert_array_equal(_moved(to_space, values.numpy()), spread.numpy())
    np.testing.assert_array_equal(_moved(to_depth, spread.numpy()), values.numpy())


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
def test_the_order_of_tensorflow_is_that_of_onnx(op: str) -> None:
    values = np.random.default_rng(0).random((1, 18, 6, 9)).astype(np.float32)
    node = onnx.helper.make_node(op, ["x"], ["y"], blocksize=3)
    (expected,) = onnx.reference.ReferenceEvaluator(node).run(None, {"x": values})
    np.testing.assert_array_equal(_moved(Movement(op=op, block=3, mode="DCR"), values), expected)


def test_a_chain_is_replaced_and_a_strange_one_stays() -> None:
    shuffle = _graph((1, 12, 4, 5), (1, 3, 2, 2, 4, 5), "perm=014253", (1, 3, 8, 10))
    recognize_movements(shuffle)
    assert shuffle[-1].op_type == "DepthToSpace"
    assert shuffle.outputs[0].name == "y"
    assert shuffle.outputs[0].producer() is shuffle[-1]
    strange = _graph((1, 8, 4, 5), (8, 4, 5), "perm=021", (1, 8, 5, 4))
    recognize_movements(strange)
    assert [node.op_type for node in strange] == ["Reshape", "Transpose", "Reshape"]


def test_a_shuffle_of_a_large_picture_is_known_by_a_sample() -> None:
    steps = [(1, 12, 540, 960), (1, 3, 2, 2, 540, 960), "perm=014253", (1, 3, 1080, 1920)]
    assert _movement(*steps) == Movement(PLANAR, "DepthToSpace", 2, "CRD")
    steps[2] = "perm=014352"
    assert _movement(*steps) is None
