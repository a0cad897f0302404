"""Pictures in levels of 8 bits, as some ONNX files take them, made real numbers in [0, 1]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.capture.editing import constant, inserted, replace

_LEVELS = np.array(255, np.float32)


def use_unit_range(graph: ir.Graph) -> None:
    """Let a graph of whole levels take and hand out real numbers in [0, 1], in place.

    Levels are multiplied at the start and divided at the end; conversions and rounding to levels
    go, because a file in float hands out what it would have rounded.

    Args:
        graph: From one picture to another, either of type uint8 or real.
    """
    (image,), (restored,) = graph.inputs, graph.outputs
    whole_ends = [value for value in (image, restored) if value.dtype == ir.DataType.UINT8]
    if not whole_ends:
        return
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.UINT8:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)
        elif node.op_type == "Round" and restored in whole_ends:
            value = node.inputs[0]
            assert value is not None
            replace(node, value)
        for output in node.outputs:
            output.type = None
    if image in whole_ends:
        readers = list(image.uses())
        levels = inserted(graph[0], "Mul", [image, constant(graph, _LEVELS, "levels")], image.shape)
        for node, index in readers:
            node.replace_input_with(index, levels)
    if restored in whole_ends:
        _divide(graph)
    for value in (image, graph.outputs[0]):
        value.dtype = ir.DataType.FLOAT


def _divide(graph: ir.Graph) -> None:
    """Hand out the graph's output divided by the number of levels."""
    levels = graph.outputs[0]
    node = ir.node("Mul", [levels, constant(graph, np.array(1 / 255, np.float32), "levels")])
    graph.append(node)
    (output,) = node.outputs
    output.name, levels.name = levels.name, None
    graph.outputs[0] = output
