"""Fully connected layers of pooled values, which are 1×1 convolutions of one pixel.

Gates that weigh channels pool a picture to one value per channel, drop the two axes of one pixel,
and take them up again behind their layers. Here the axes stay.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.capture.editing import Array, constant, constant_of, inserted, replace, shape_of
from export.capture.movements import FROM_PLANAR, TO_PLANAR

_DROPPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_UNARY = frozenset({"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip"})


def keep_pixel_axes(graph: ir.Graph) -> None:
    """Let everything between a pooled value and its gate be 1 × C × 1 × 1, in place.

    Args:
        graph: A graph whose shapes are known.
    """
    pixels: dict[ir.Value, ir.Value] = {}  # By each vector 1 × C the same as 1 × C × 1 × 1.
    for node in list(graph):
        value = next((one for one in node.inputs if one in pixels), (*node.inputs, None)[0])
        if value is None:
            continue
        if node.op_type in _DROPPING and (pixel := _pixel(node, value, pixels)) is not None:
            _take_up(node, pixel, pixels)
        elif value in pixels and (made := _layer(node, value, pixels[value])) is not None:
            pixels[node.outputs[0]] = made


def _pixel(node: ir.Node, value: ir.Value, pixels: dict[ir.Value, ir.Value]) -> ir.Value | None:
    """Return an operand as 1 × C × 1 × 1; None if it is no pooled value."""
    if value in pixels:
        return pixels[value]
    shape = shape_of(value)
    if shape is None or len(shape) != 4 or shape[0] != 1:
        return None
    if shape[2:] == (1, 1):
        return value
    if shape[1:3] == (1, 1):
        return inserted(node, "Transpose", [value], (1, shape[3], 1, 1), {"perm": TO_PLANAR})
    return None


def _take_up(node: ir.Node, pixel: ir.Value, pixels: dict[ir.Value, ir.Value]) -> None:
    """Note what a change of axes makes of a pooled value, or put it in the place of the node."""
    shape, channels = shape_of(node.outputs[0]), shape_of(pixel)
    assert channels is not None
    if shape == (1, channels[1]):
        pixels[node.outputs[0]] = pixel
    elif shape == channels:
        replace(node, pixel)
    elif shape == (1, 1, 1, channels[1]):
        replace(node, inserted(node, "Transpose", [pixel], shape, {"perm": FROM_PLANAR}))


def _layer(node: ir.Node, value: ir.Value, pixel: ir.Value) -> ir.Value | None:
    """Return the result of a layer on 1 × C × 1 × 1; None if it is none."""
    shape = shape_of(node.outputs[0])
    if shape is None or len(shape) != 2:
        return None
    made = (*shape, 1, 1)
    if node.op_type in _UNARY:
        copied = {one.name: one.value for one in node.attributes.values()}
        return inserted(node, node.op_type, [pixel, *node.inputs[1:]], made, copied)
    arrays = [constant_of(one) for one in node.inputs if one is not value]
    weight = arrays[0] if arrays else None
    if weight is None or any(array is None for array in arrays):
        return None
    if node.op_type in {"Add", "Mul"} and weight.size in (1, shape[1]):
        operand = constant(_graph(node), weight.reshape(1, -1, 1, 1), "vector")
        return inserted(node, node.op_type, [pixel, operand], made)
    if node.inputs[0] is not value:
        return None
    if node.op_type == "MatMul" and weight.ndim == 2:
        return _convolved(node, pixel, weight.T, np.zeros(shape[1]))
    if node.op_type == "Gemm":
        attributes = node.attributes
        kernel = weight if attributes.get_int("transB", 0) else weight.T
        bias = arrays[1] if len(arrays) > 1 and arrays[1] is not None else np.zeros(1)
        return _convolved(
            node,
            pixel,
            attributes.get_float("alpha", 1.0) * kernel,
            attributes.get_float("beta", 1.0) * np.broadcast_to(bias.ravel(), (shape[1],)),
        )
    return None


def _convolved(node: ir.Node, pixel: ir.Value, kernel: Array, bias: Array) -> ir.Value:
    graph, kernel = _graph(node), kernel.astype(np.float32)[:, :, None, None]
    operands = [constant(graph, np.ascontiguousarray(kernel), "dense")]
    operands.append(constant(graph, bias.astype(np.float32), "dense"))
    return inserted(node, "Conv", [pixel, *operands], (1, len(kernel), 1, 1))


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
