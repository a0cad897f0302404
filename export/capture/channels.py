"""Parts and orders of channels: slices become one Split, other choices a 1×1 convolution.

A network that works on some of its channels slices them off; one that was trained on pictures in
blue, green, red turns their order around.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from export.capture.editing import constant, constant_of, inserted, replace


def choose_channels(graph: ir.Graph) -> None:
    """Replace slices and gathers of channels, in place.

    Args:
        graph: A graph whose values have known channel counts, N × C × H × W; height and width may
            be symbolic. Others are left alone.
    """
    chosen: dict[ir.Value, list[tuple[ir.Node, Sequence[int]]]] = {}
    for node in list(graph):
        value, channels = node.inputs[0] if node.inputs else None, _chosen(node)
        if value is None or channels is None:
            continue
        if list(channels) == list(range(_count(value))):
            replace(node, value)
        elif list(channels) == list(range(channels[0], channels[0] + len(channels))):
            chosen.setdefault(value, []).append((node, channels))
        else:
            _convolve(node, value, channels)
    for value, parts in chosen.items():
        _split(value, parts)


def _count(value: ir.Value | None) -> int:
    """Return the channels of a value of four axes; 0 if they are not known."""
    shape = None if value is None else value.shape
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return 0
    return shape[1]


def _chosen(node: ir.Node) -> Sequence[int] | None:
    """Return the channels that a node picks, in its order; None if it does something else."""
    count = _count(node.inputs[0]) if node.inputs else 0
    if node.op_type not in {"Gather", "Slice"} or not count:
        return None
    arrays = [constant_of(value) for value in node.inputs[1:]]
    if any(array is None for array in arrays):
        return None
    if node.op_type == "Gather":
        indices = arrays[0]
        one_axis = indices is not None and indices.ndim == 1
        if indices is None or not one_axis or node.attributes.get_int("axis", 0) not in (1, -3):
            return None
        return [int(index) % count for index in indices]
    numbers = [[int(one) for one in array.ravel()] for array in arrays if array is not None]
    starts, ends, axes, steps = (*numbers, *([0], [1])[len(numbers) - 2 :])
    if axes not in ([1], [-3]):
        return None
    return range(count)[starts[0] : _open_end(ends[0], count, steps[0]) : steps[0]]


def _open_end(end: int, count: int, step: int) -> int | None:
    """Return the end of a slice as Python writes it, where ONNX writes a number beyond the end."""
    return None if step < 0 and end < -count else end


def _convolve(node: ir.Node, value: ir.Value, channels: Sequence[int]) -> None:
    """Pick channels by a 1×1 convolution with a one in each row."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    kernel = np.zeros((len(channels), _count(value), 1, 1), np.float32)
    kernel[np.arange(len(channels)), list(channels)] = 1
    bias = np.zeros(len(channels), np.float32)
    operands = [value, constant(graph, kernel, "order"), constant(graph, bias, "order")]
    replace(node, inserted(node, "Conv", operands, node.outputs[0].shape))


def _split(value: ir.Value, parts: Sequence[tuple[ir.Node, Sequence[int]]]) -> None:
    """Cut a value once where its slices do not overlap, else once for each."""
    ranges = sorted({(channels[0], channels[-1] + 1) for _, channels in parts})
    if any(stop > start for (_, stop), (start, _) in pairwise(ranges)):
        for part in parts:
            _split(value, [part])
        return
    first = parts[0][0]
    graph = first.graph
    assert isinstance(graph, ir.Graph)
    cuts = sorted({0, _count(value), *(cut for one in ranges for cut in one)})
    sizes = constant(graph, np.diff(cuts).astype(np.int64), "sizes")
    node = ir.node("Split", [value, sizes], {"axis": 1}, num_outputs=len(cuts) - 1, name=first.name)
    node.metadata_props.update(first.metadata_props)
    graph.insert_before(first, node)
    for (start, stop), output in zip(pairwise(cuts), node.outputs, strict=True):
        shape = value.shape
        assert shape is not None
        output.shape = ir.Shape([shape[0], stop - start, *shape[2:]])
        output.dtype = ir.DataType.FLOAT
    for slicing, channels in parts:
        replace(slicing, node.outputs[cuts.index(channels[0])])
