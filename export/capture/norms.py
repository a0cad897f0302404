"""Normalizations, means over channels and work on some channels, as exporters write them.

One function per idiom (see ``export.capture.idioms``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.capture.editing import (
    Array,
    channels_between,
    constant,
    constant_of,
    repeating,
)
from export.capture.found import Found

_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def square(node: ir.Node) -> Found | None:
    """A power of two is a product, and one of a half is a square root."""
    exponent = _number(node.inputs[1]) if node.op_type == "Pow" else None
    if exponent == 2:
        return Found("Mul", [node.inputs[0]] * 2)
    return Found("Sqrt", [node.inputs[0]]) if exponent == 0.5 else None


def one_bound(node: ir.Node) -> Found | None:
    """A Clip with one bound is a maximum or a minimum."""
    value, low, high = (*node.inputs, None, None, None)[:3]
    if node.op_type != "Clip" or (low is None) == (high is None):
        return None
    return Found("Max", [value, low]) if high is None else Found("Min", [value, high])


def reciprocal(node: ir.Node) -> Found | None:
    """A reciprocal is a quotient of one."""
    if node.op_type != "Reciprocal":
        return None
    return Found("Div", [_constant(node, np.array(1, np.float32)), node.inputs[0]])


def channel_norm(node: ir.Node) -> Found | None:
    """Centred values over the root of their mean square, over channels: layer normalization.

    The quotient may be a product with the root's reciprocal.
    """
    centred, root = _quotient(node)
    difference = _made_by(centred, "Sub")
    squares = _made_by(_operand(_made_by(root, "Sqrt")), "Add")
    if centred is None or difference is None or squares is None:
        return None
    value, mean = difference.inputs
    variance, epsilon = squares.inputs[0], _number(squares.inputs[1])
    if value is None or epsilon is None or _averaged(mean) is not value:
        return None
    product = _made_by(_averaged(variance), "Mul")
    if product is None or any(one is not centred for one in product.inputs):
        return None
    return _norm(node, "ChannelNorm", value, epsilon)


def layer_norm(node: ir.Node) -> Found | None:
    """A LayerNormalization between transposes to channels last and back."""
    inner = _made_by(_operand(node), "LayerNormalization") if node.op_type == "Transpose" else None
    outer = _made_by(_operand(inner), "Transpose")
    if inner is None or outer is None or inner.attributes.get_int("axis", -1) not in {-1, 3}:
        return None
    back, forth = (list(one.attributes.get_ints("perm", [])) for one in (node, outer))
    if back != _CHANNELS_FIRST or forth != _CHANNELS_LAST:
        return None
    arrays = [constant_of(one) for one in inner.inputs[1:]]
    value, epsilon = outer.inputs[0], inner.attributes.get_float("epsilon", 1e-5)
    return None if value is None else _norm(node, "ChannelNorm", value, epsilon, arrays)


def instance_norm(node: ir.Node) -> Found | None:
    """An InstanceNormalization of a picture's channels."""
    value = node.inputs[0] if node.op_type == "InstanceNormalization" else None
    if value is None:
        return None
    arrays = [constant_of(one) for one in node.inputs[1:]]
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return _norm(node, "GroupNorm", value, epsilon, arrays, _count(value))


def group_norm(node: ir.Node) -> Found | None:
    """An InstanceNormalization of channels that a Reshape made one per group, shaped back."""
    inner = _made_by(_operand(node), "InstanceNormalization") if node.op_type == "Reshape" else None
    outer = _made_by(_operand(inner), "Reshape")
    if inner is None or outer is None:
        return None
    value, extents = outer.inputs[0], constant_of(outer.inputs[1])
    factors, shifts = (constant_of(one) for one in inner.inputs[1:])
    if value is None or extents is None or len(extents) != 3:
        return None
    if factors is None or shifts is None or (factors != 1).any() or shifts.any():
        return None
    epsilon = inner.attributes.get_float("epsilon", 1e-5)
    return _norm(node, "GroupNorm", value, epsilon, groups=int(extents[1]))


def factor_and_shift(node: ir.Node) -> Found | None:
    """A product with, or a sum of, a constant per channel behind a normalization, becomes its."""
    if node.op_type not in {"Mul", "Add"}:
        return None
    for value, other in (node.inputs, reversed(node.inputs)):
        norm, array = None if value is None else value.producer(), constant_of(other)
        if norm is None or norm.op_type not in {"ChannelNorm", "GroupNorm"} or array is None:
            continue
        scale, bias = (constant_of(one) for one in norm.inputs[1:])
        alone = value is not None and len(value.uses()) == 1 and not value.is_graph_output()
        channelwise = array.ndim < 3 or array.size == array.shape[-3]
        if not alone or scale is None or bias is None or array.size not in {1, scale.size}:
            continue
        if not channelwise or (array.ndim < 3 and array.size > 1):
            continue
        by = array.reshape(-1)
        scale, bias = (scale * by, bias * by) if node.op_type == "Mul" else (scale, bias + by)
        constants = [_constant(node, one.astype(np.float32)) for one in (scale, bias)]
        attributes = {name: one.value for name, one in norm.attributes.items()}
        return Found(norm.op_type, [norm.inputs[0], *constants], attributes)
    return None


def mean_of_channels(node: ir.Node) -> Found | None:
    """A mean over channels is a 1×1 convolution; for what is no normalization."""
    value = _averaged(node.outputs[0]) if node.op_type == "ReduceMean" else None
    channels = _count(value)
    if not channels:
        return None
    kernel = np.full((1, channels, 1, 1), 1 / channels, np.float32)
    return Found("Conv", [value, _constant(node, kernel), _constant(node, np.zeros(1, np.float32))])


def assigned_channels(node: ir.Node) -> Found | None:
    """Channels assigned in place: a ScatterND on the first axis, between transposes.

    The result concatenates the channels before, the assigned ones and those behind.
    """
    scatter = _made_by(_operand(node), "ScatterND") if node.op_type == "Transpose" else None
    if scatter is None or scatter.attributes.get_string("reduction", "none") != "none":
        return None
    sources = [_made_by(scatter.inputs[index], "Transpose") for index in (0, 2)]
    if not all(
        one is not None and list(one.attributes.get_ints("perm", [])) == [1, 0, 2, 3]
        for one in (*sources, node)
    ):
        return None
    value, update = (_operand(one) for one in sources)
    first, total, count = _first_index(scatter.inputs[1]), _count(value), _count(update)
    if value is None or first is None or not total or not count:
        return None
    before = channels_between(node, value, 0, first)
    behind = channels_between(node, value, first + count, total)
    return Found("Concat", [*before, update, *behind], {"axis": 1})


def repeated_channels(node: ir.Node) -> Found | None:
    """Every channel several times in a row: a 1×1 convolution with a one in each row.

    It is written as an Expand of a new axis behind the channels, and a Reshape.
    """
    expanded = _made_by(_operand(node), "Expand") if node.op_type == "Reshape" else None
    axis = _made_by(_operand(expanded), "Unsqueeze")
    if expanded is None or axis is None or _number(axis.inputs[1]) not in {2, -3}:
        return None
    value, extents = axis.inputs[0], constant_of(expanded.inputs[1])
    channels, made = _count(value), _count(node.outputs[0])
    if value is None or extents is None or not channels or len(extents) != 5:
        return None
    if list(np.delete(extents, 2)) != [1] * 4 or made != channels * extents[2]:
        return None
    assert isinstance(node.graph, ir.Graph)
    return Found("Conv", [value, *repeating(node.graph, channels, made // channels)])


def _first_index(indices: ir.Value | None) -> int | None:
    """Return the first of successive indices, constant or a slice of a Range; None if unknown."""
    array = constant_of(indices)
    if array is not None:
        places = array.reshape(-1)
        return int(places[0]) if (np.diff(places) == 1).all() else None
    part = _made_by(_operand(_made_by(indices, "Unsqueeze")), "Slice")
    whole = _made_by(_operand(part), "Range")
    if part is None or whole is None or _number(whole.inputs[0]) != 0:
        return None
    start = constant_of(part.inputs[1])
    step = constant_of(part.inputs[4]) if len(part.inputs) > 4 else np.array([1])
    if start is None or step is None or step.item() != 1 or _number(whole.inputs[2]) != 1:
        return None
    return int(start.item()) if start.item() >= 0 else None


def _quotient(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """Return what is divided by what, in a quotient or a product with a reciprocal."""
    if node.op_type == "Div":
        return node.inputs[0], node.inputs[1]
    if node.op_type == "Mul":
        for value, other in (node.inputs, reversed(node.inputs)):
            inverse = _made_by(other, "Div")
            if inverse is not None and _number(inverse.inputs[0]) == 1:
                return value, inverse.inputs[1]
    return None, None


def _averaged(value: ir.Value | None) -> ir.Value | None:
    """Return the value whose mean over channels another value is."""
    node = _made_by(value, "ReduceMean")
    if node is None or node.attributes.get_int("keepdims", 1) != 1:
        return None
    array = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = node.attributes.get_ints("axes", []) if array is None else array.reshape(-1).tolist()
    return node.inputs[0] if list(axes) in ([1], [-3]) else None


def _norm(
    node: ir.Node,
    op: str,
    value: ir.Value,
    epsilon: float,
    arrays: Sequence[Array | None] = (),
    groups: int | None = None,
) -> Found | None:
    channels = _count(value)
    if not channels:
        return None
    scale, bias = (*arrays, None, None)[:2]
    constants = [
        np.ones(channels, np.float32) if scale is None else scale.reshape(-1),
        np.zeros(channels, np.float32) if bias is None else bias.reshape(-1),
    ]
    inputs = [value, *(_constant(node, one.astype(np.float32)) for one in constants)]
    return Found(op, inputs, {"epsilon": epsilon, **({} if groups is None else {"groups": groups})})


def _made_by(value: ir.Value | None, op: str) -> ir.Node | None:
    """Return the node of an operator that makes a value; None if another makes it."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op else None


def _operand(node: ir.Node | None) -> ir.Value | None:
    return None if node is None else node.inputs[0]


def _count(value: ir.Value | None) -> int:
    """Return the channels of a value N × C × H × W; 0 if it has another form."""
    shape = None if value is None else value.shape
    return shape[1] if shape and len(shape) == 4 and isinstance(shape[1], int) else 0


def _number(value: ir.Value | None) -> float | None:
    array = constant_of(value)
    return float(array.item()) if array is not None and array.size == 1 else None


def _constant(node: ir.Node, array: Array) -> ir.Value:
    assert isinstance(node.graph, ir.Graph)
    return constant(node.graph, np.asarray(array), "constant")
