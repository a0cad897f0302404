"""Reading the ONNX operators that read windows of pixels, and those that add or cut off pixels.

A reader returns an operator of the vocabulary, its attributes and the number of inputs that are
operands, or None for all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.capture.editing import constant_of
from export.errors import CannotLower
from export.graph import Array
from export.node import Attribute, convolution_attributes

Reading = tuple[str, dict[str, Attribute], int | None]

_TO_THE_END = 2**31 - 1
"""Ends of slices from here on are those of the axis."""


def convolution(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read a Conv; its kernel must be constant."""
    weight = inputs[1] if len(inputs) == 3 else None
    if weight is None:
        raise CannotLower(f"{place}: a convolution needs constant weights")
    groups = node.attributes.get_int("group", 1)
    if weight.ndim != 4:
        raise CannotLower(f"{place}: a convolution over {weight.ndim - 2} axes; expected two")
    stride, dilation = _even(node, place, "strides"), _even(node, place, "dilations")
    pads = _pads(node, place, weight.shape[2:], stride, dilation)
    op, attributes = convolution_attributes(weight.shape[2:], stride, pads, groups, dilation)
    return op, attributes, None


def transposed_convolution(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read a ConvTranspose; padding of its output makes it cut off less."""
    weight = inputs[1] if len(inputs) == 3 else None
    if weight is None:
        raise CannotLower(f"{place}: a transposed convolution needs constant weights")
    attributes, stride = node.attributes, _even(node, place, "strides")
    if weight.ndim != 4 or _even(node, place, "dilations") != 1 or "output_shape" in attributes:
        raise CannotLower(
            f"{place}: expected a transposed convolution over two axes, without dilation and "
            "without a size of its own"
        )
    above, left, below, right = attributes.get_ints("pads", (0, 0, 0, 0))
    taller, wider = attributes.get_ints("output_padding", (0, 0))
    crops = (above, below - taller, left, right - wider)
    if min(crops) < 0 or min(weight.shape[2:]) < stride:
        raise CannotLower(
            f"{place}: a transposed convolution of {weight.shape[2:]} with stride {stride}, pads "
            f"{(above, left, below, right)} and output padding {(taller, wider)} has pixels that "
            "no pixel reaches; make the kernel as large as the stride, and pad less"
        )
    groups = attributes.get_int("group", 1)
    return "ConvTranspose", {"stride": stride, "groups": groups, "crops": crops}, None


def pad(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read a Pad of height and width."""
    mode = node.attributes.get_string("mode", "constant")
    pads = inputs[1]
    value = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else np.arange(4)
    modes = {"constant": "zeros", "reflect": "reflect", "edge": "edge"}
    if pads is None or axes is None or mode not in modes:
        raise CannotLower(f"{place}: pictures are padded by numbers of pixels known beforehand")
    if value is not None and np.any(value):
        raise CannotLower(f"{place}: pictures are padded with zeros; found {value.item():g}")
    begins, ends = np.zeros(4, int), np.zeros(4, int)
    begins[axes], ends[axes] = np.split(pads.astype(int), 2)
    if begins[:2].any() or ends[:2].any():
        raise CannotLower(f"{place}: only height and width can be padded")
    sides = (int(begins[2]), int(ends[2]), int(begins[3]), int(ends[3]))
    return "Pad", {"pads": sides, "mode": modes[mode]}, 1


def cut(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read a Slice of height or width that cuts off pixels at the edges."""
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 else None
    starts, ends = inputs[1], inputs[2]
    if starts is None or ends is None or axes is None or (steps is not None and np.any(steps != 1)):
        raise CannotLower(f"{place}: pictures are cut by numbers of pixels known beforehand")
    sides = dict.fromkeys((2, 3), (0, 0))
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    for axis, start, end in zip(axes.tolist(), starts.tolist(), ends.tolist(), strict=True):
        extent = None if shape is None else shape[axis]
        if end >= _TO_THE_END:
            end = 0
        elif end > 0 and isinstance(extent, int):
            end -= extent
        if axis % 4 not in sides or start < 0 or end > 0:
            raise CannotLower(f"{place}: pictures are cut at their edges; found a cut elsewhere")
        sides[axis % 4] = (-int(start), int(end))
    return "Pad", {"pads": (*sides[2], *sides[3]), "mode": "zeros"}, 1


def max_pool(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read a MaxPool."""
    kernel, stride, pads = _pooled(node, place)
    return "MaxPool", {"kernel": kernel, "stride": stride, "pads": pads}, None


def average_pool(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read an AveragePool: a convolution per channel, whose kernel is ``averages``."""
    kernel, stride, pads = _pooled(node, place)
    if any(pads) and not node.attributes.get_int("count_include_pad", 0):
        raise CannotLower(
            f"{place}: an average without the padding it reads is another function at the edges; "
            "count the padding, or pad nothing"
        )
    weight = inputs[1]
    assert weight is not None
    op, attributes = convolution_attributes(kernel, stride, pads, len(weight), 1)
    return op, attributes, None


def averages(node: ir.Node, place: str) -> tuple[Array, Array]:
    """Return the kernel and the bias that average each channel over a window."""
    source = node.inputs[0]
    channels = None if source is None or source.shape is None else source.shape[1]
    if not isinstance(channels, int):
        raise CannotLower(f"{place}: an average over windows of an unknown number of channels")
    kernel = _pooled(node, place)[0]
    weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
    return weight, np.zeros(channels, np.float32)


def space_to_depth(node: ir.Node, place: str, inputs: list[Array | None]) -> Reading:
    """Read a SpaceToDepth; ONNX knows TensorFlow's order of channels alone."""
    block = node.attributes.get_int("blocksize")
    mode = node.attributes.get_string("mode", "DCR")
    return "SpaceToDepth", {"block": block, "mode": mode}, None


def _pooled(node: ir.Node, place: str) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Return window, stride and padding of a pooling."""
    kernel = tuple(node.attributes.get_ints("kernel_shape"))
    stride = _even(node, place, "strides")
    if len(kernel) != 2 or _even(node, place, "dilations") != 1 or len(node.outputs) > 1:
        raise CannotLower(f"{place}: expected a pooling over two axes, without dilation or indices")
    if node.attributes.get_int("ceil_mode", 0) and stride > 1:
        raise CannotLower(f"{place}: windows must lie within the picture; set ceil_mode=False")
    return kernel, stride, _pads(node, place, kernel, stride, 1)


def _even(node: ir.Node, place: str, attribute: str) -> int:
    """Return the one value of an attribute along both axes."""
    values = node.attributes.get_ints(attribute, (1, 1))
    if len({*values}) != 1:
        raise CannotLower(
            f"{place}: {node.op_type} has {attribute} {tuple(values)}; expected equal ones along "
            "both axes"
        )
    return int(values[0])


def _pads(
    node: ir.Node, place: str, kernel: Sequence[int], stride: int, dilation: int
) -> tuple[int, ...]:
    """Return the padding above, below, left and right.

    Automatic padding depends on the size; it is that of sizes which are multiples of the stride.
    """
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    if automatic in ("NOTSET", "VALID"):
        above, left, below, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
        return (above, below, left, right)
    sides: list[int] = []
    for size in kernel:
        total = max(dilation * (size - 1) + 1 - stride, 0)
        less, more = total // 2, total - total // 2
        sides += (less, more) if automatic == "SAME_UPPER" else (more, less)
    return tuple(sides)
