"""N × H × W × C made N × C × H × W: the transposes of an ONNX model moved out of it.

TensorFlow's networks keep channels last, and their ONNX files transpose around each convolution.
Here every value is made planar, and what a transpose says is noted beside the value and carried on
through operators that do not care, until another transpose undoes it. A transpose that remains
stands in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from export.capture.editing import Array, constant, constant_of, inserted
from export.capture.movements import FROM_PLANAR, PLANAR, TO_PLANAR, Axes
from export.errors import CannotLower

View = tuple[ir.Value, Axes]
"""A value that is there, and the transpose that makes of it the one that is meant."""


def make_planar(graph: ir.Graph) -> None:
    """Move the transposes of a graph out of it where they cancel, in place.

    Args:
        graph: From one picture to another, N × C × H × W or N × H × W × C; becomes one of
            N × C × H × W. The number of axes of each value is known.
    """
    views: dict[ir.Value, View] = {}
    (image,) = graph.inputs
    if is_interleaved(image):
        image.shape = _turned(image.shape, TO_PLANAR)
        views[image] = (image, FROM_PLANAR)
    for node in list(graph):
        if node.op_type == "Transpose" and _rank(node.inputs[0]) == 4:
            views[node.outputs[0]] = _composed(node, views)
        elif any(value in views for value in node.inputs if value is not None):
            _carry_on(node, views)
    _hand_out(graph, views)
    for node in reversed(list(graph)):
        output = node.outputs[0]
        if node.op_type == "Transpose" and not output.uses() and not output.is_graph_output():
            graph.remove(node, safe=True)


def is_interleaved(image: ir.Value) -> bool:
    """Tell whether a picture's channels are its last axis and not its second."""
    shape = () if image.shape is None else tuple(image.shape)
    return len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)


def _rank(value: ir.Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)


def _composed(node: ir.Node, views: Mapping[ir.Value, View]) -> View:
    """Return what the output of a transpose is a view of."""
    source = node.inputs[0]
    assert source is not None
    value, axes = views.get(source, (source, PLANAR))
    order = node.attributes.get_ints("perm", PLANAR[::-1])
    first, second, third, fourth = (axes[axis] for axis in order)
    return value, (first, second, third, fourth)


def _carry_on(node: ir.Node, views: dict[ir.Value, View]) -> None:
    """Let a node read planar values and note that its outputs are views; else transpose before it.

    Values of which no transpose was noted are planar.
    """
    moved = [value for value in node.inputs if value is not None and constant_of(value) is None]
    axes = {views[value][1] if value in views else PLANAR for value in moved}
    follow = FOLLOWERS.get(node.op_type)
    (common, *others) = axes
    if others or (common != PLANAR and (follow is None or not follow(node, common))):
        for index, value in enumerate(node.inputs):
            if value in views:
                node.replace_input_with(index, _transposed(node, *views[value]))
        return
    for index, value in enumerate(node.inputs):
        if value in views:
            node.replace_input_with(index, views[value][0])
    if common != PLANAR:
        for output in node.outputs:
            output.shape = _turned(output.shape, tuple(map(common.index, range(4))))
            views[output] = (output, common)


def _transposed(before: ir.Node, value: ir.Value, axes: Axes) -> ir.Value:
    if axes == PLANAR:
        return value
    return inserted(before, "Transpose", [value], _turned(value.shape, axes), {"perm": axes})


def _turned(shape: ir.Shape | None, axes: Sequence[int]) -> ir.Shape | None:
    """Return the shape of a transpose; None if that of the operand is not known."""
    if shape is None or len(shape) != 4:
        return None
    return ir.Shape([shape[axis] for axis in axes])


def _hand_out(graph: ir.Graph, views: Mapping[ir.Value, View]) -> None:
    """Make the output planar, whatever its axes were."""
    (output,) = graph.outputs
    value, axes = views.get(output, (output, PLANAR))
    if axes not in (PLANAR, FROM_PLANAR):
        raise CannotLower(f"the result's axes are {axes} of N × C × H × W; expected N × H × W × C")
    if value is not output:
        value.name, output.name = output.name, None
        graph.outputs[0] = value


# Each follower makes a node work on planar values, given the axes of its operands, or returns
# False if it cannot.
_Follower = Callable[[ir.Node, Axes], bool]


def _pointwise(node: ir.Node, axes: Axes) -> bool:
    """Turn the constants of an operator that broadcasts; others have none."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    turned: list[tuple[int, Array]] = []
    for index, value in enumerate(node.inputs):
        array = constant_of(value)
        if array is None:
            if value is not None and _rank(value) != 4:
                return False
            continue
        if array.ndim > 4:
            return False
        whole = array.reshape((1,) * (4 - array.ndim) + array.shape)
        turned.append((index, whole.transpose(np.argsort(axes))))
    for index, array in turned:
        if array.size > 1:
            node.replace_input_with(index, constant(graph, array, "planar"))
    return True


def _linear(node: ir.Node, axes: Axes) -> bool:
    """Turn a product of the channels of every pixel with a matrix into a 1×1 convolution."""
    matrix, graph = constant_of(node.inputs[1]), node.graph
    if axes != FROM_PLANAR or matrix is None or matrix.ndim != 2:
        return False
    assert isinstance(graph, ir.Graph)
    kernel = np.ascontiguousarray(matrix.T.astype(np.float32)[:, :, None, None])
    operands = (node.inputs[0], constant(graph, kernel, "dense"))
    bias = constant(graph, np.zeros(len(kernel), np.float32), "dense")
    node.op_type = "Conv"
    node.resize_inputs(3)
    for index, value in enumerate((*operands, bias)):
        node.replace_input_with(index, value)
    return True


def _norm(node: ir.Node, axes: Axes) -> bool:
    """Turn a normalization over the last axis, of channels, into one over channels."""
    arrays = [constant_of(value) for value in node.inputs[1:]]
    graph, last = node.graph, node.attributes.get_int("axis", -1) in (-1, 3)
    if axes != FROM_PLANAR or not last or not arrays or any(one is None for one in arrays):
        return False
    assert isinstance(graph, ir.Graph)
    scale, bias = (
        one.ravel().astype(np.float32) for one in (*arrays, np.zeros(1))[:2] if one is not None
    )
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    node.op_type = "ChannelNorm"
    node.attributes.clear()
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
    node.resize_inputs(3)
    for index, array in ((1, scale), (2, np.broadcast_to(bias, scale.shape).copy())):
        node.replace_input_with(index, constant(graph, array, "norm"))
    return True


def _along_axis(node: ir.Node, axes: Axes) -> bool:
    """Turn the attribute ``axis``."""
    axis = node.attributes.get_int("axis", 0)
    node.attributes["axis"] = ir.AttrInt64("axis", axes[axis % 4])
    return True


def _over_axes(node: ir.Node, axes: Axes) -> bool:
    """Turn the constant axes of a mean that keeps them."""
    over = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if over is None or node.attributes.get_int("keepdims", 1) != 1:
        return False
    turned = np.array(sorted(axes[int(axis) % 4] for axis in over.ravel()), np.int64)
    return _with_constants(node, {1: turned})


def _slicing(node: ir.Node, axes: Axes) -> bool:
    """Turn the constant axes of a slice."""
    along = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if along is None:
        return False
    turned = np.array([axes[int(axis) % 4] for axis in along.ravel()], np.int64)
    return _with_constants(node, {3: turned})


def _padding(node: ir.Node, axes: Axes) -> bool:
    """Turn the amounts of a padding on all four axes."""
    pads = constant_of(node.inputs[1])
    if pads is None or pads.size != 8:
        return False
    inverse = np.argsort(axes)
    return _with_constants(node, {1: np.concatenate([pads[:4][inverse], pads[4:][inverse]])})


def _resizing(node: ir.Node, axes: Axes) -> bool:
    """Turn the factors or sizes of a resize of all four axes."""
    turned = {}
    for index, value in enumerate(node.inputs):
        array = constant_of(value)
        if index > 0 and array is not None and array.size == 4:
            turned[index] = array[np.argsort(axes)]
    return _with_constants(node, turned)


def _with_constants(node: ir.Node, arrays: Mapping[int, Array]) -> bool:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for index, array in arrays.items():
        node.replace_input_with(index, constant(graph, array, "planar"))
    return True


FOLLOWERS: Mapping[str, _Follower] = {
    **dict.fromkeys(
        (
            *("Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "Sigmoid", "Tanh", "Erf", "Exp", "Log"),
            *("Sqrt", "Reciprocal", "Neg", "Abs", "Softplus", "Mish", "Gelu", "HardSwish", "Swish"),
            *("HardSigmoid", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Cast"),
        ),
        _pointwise,
    ),
    **dict.fromkeys(("Concat", "Split", "Gather"), _along_axis),
    "Slice": _slicing,
    "MatMul": _linear,
    "LayerNormalization": _norm,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), _over_axes),
    "Pad": _padding,
    "Resize": _resizing,
}
"""Operators that work on other axes, once constants and attributes are turned."""
