"""Reading and changing an ONNX graph, in the few ways that preparing a file takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Extents = tuple[int, ...]


def shape_of(value: ir.Value | None) -> Extents | None:
    """Return the shape of a value; None if it is not known whole."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(extent) for extent in value.shape.numpy())


def constant_of(value: ir.Value | None) -> Array | None:
    """Return the array of a constant; None if it is no constant, or left out."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def inserted(
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    shape: Extents | ir.Shape | None,
    attributes: Mapping[str, Any] | None = None,
) -> ir.Value:
    """Insert a node of one output before another, whose name it takes, and return its output."""
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    node = ir.node(op, inputs, attributes or {}, name=before.name)
    node.metadata_props.update(before.metadata_props)
    graph.insert_before(before, node)
    output = node.outputs[0]
    output.shape = shape if shape is None or isinstance(shape, ir.Shape) else ir.Shape(shape)
    output.dtype = ir.DataType.FLOAT
    return output


def constant(graph: ir.Graph, array: Array, like: str) -> ir.Value:
    """Add a constant to a graph, under a name made of ``like``, and return it."""
    name = f"{like}.{len(graph.initializers)}"
    while name in graph.initializers:
        name += "_"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def channels_between(before: ir.Node, value: ir.Value, start: int, stop: int) -> list[ir.Value]:
    """Insert a Slice of channels, N × C × H × W, and return its output; nothing if it is empty."""
    graph, shape = before.graph, value.shape
    assert isinstance(graph, ir.Graph)
    assert shape is not None
    if start == stop:
        return []
    bounds = [constant(graph, np.array([one]), "channels") for one in (start, stop, 1)]
    made = ir.Shape([shape[0], stop - start, *shape[2:]])
    return [inserted(before, "Slice", [value, *bounds], made)]


def repeating(graph: ir.Graph, channels: int, times: int) -> list[ir.Value]:
    """Add the kernel and bias of a 1×1 convolution that repeats every channel, and return them."""
    kernel = np.eye(channels, dtype=np.float32).repeat(times, axis=0)[..., None, None]
    operands = (kernel, np.zeros(len(kernel), np.float32))
    return [constant(graph, one, "repeat") for one in operands]


def replace(node: ir.Node, value: ir.Value) -> None:
    """Let ``value`` be read wherever the output of ``node`` is, and remove the node.

    An output of the graph keeps its name.
    """
    graph, (output,) = node.graph, node.outputs
    assert isinstance(graph, ir.Graph)
    if output.is_graph_output():
        value.name, output.name = output.name, None
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
