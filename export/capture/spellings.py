"""Operators of ONNX files in another form than reslite reads.

One function per spelling. Each takes a node and, if it is of this spelling, puts the operators that
reslite reads in its place; ``preparation`` applies all of them to every node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from export.capture.editing import (
    Array,
    channels_between,
    constant,
    constant_of,
    inserted,
    repeating,
    replace,
    shape_of,
)
from export.errors import CannotLower

_LARGEST = float(np.finfo(np.float16).max)
"""Bounds beyond this stand for infinity: exporters write the largest float of some precision."""

_SAME = frozenset({"SAME_UPPER", "SAME_LOWER"})
"""Automatic paddings that make a result as large as the operand times the stride."""

_ROUNDING = 1e-6
"""What a slope in float32 may be off from a sixth."""


def relu_of_clip(node: ir.Node) -> None:
    """A Clip from 0 up to no bound is a Relu."""
    if node.op_type != "Clip":
        return
    low, high = (_bound(node, index) for index in (1, 2))
    if low == 0 and (high is None or high >= _LARGEST):
        _put(node, "Relu", node.inputs[:1])


def _bound(node: ir.Node, index: int) -> float | None:
    array = constant_of(node.inputs[index]) if len(node.inputs) > index else None
    return None if array is None else float(array.item())


def nearest_resize(node: ir.Node) -> None:
    """Spellings of a resize to nearest neighbours by whole factors, which repeats pixels.

    Sizes become factors. Between pixel centres (``half_pixel``), the position that a repeated pixel
    is read at is less than half a pixel off, so that every rounding to the nearest gives it.
    """
    if node.op_type != "Resize" or node.attributes.get_string("mode", "nearest") != "nearest":
        return
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
        return
    factors = [large / small for small, large in zip(before, after, strict=True)]
    how = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    repeats = (how, rounding) in {("asymmetric", "floor"), ("tf_half_pixel_for_nn", "floor")} or (
        how in {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"}
        and rounding.startswith("round_prefer")
    )
    if not repeats or any(factor < 1 or factor % 1 for factor in factors):
        return
    scales = constant(_graph(node), np.array(factors, np.float32), "factors")
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    replace(node, inserted(node, "Resize", [node.inputs[0], None, scales], after, attributes))


def batch_norm(node: ir.Node) -> None:
    """Batch normalization that follows no convolution: a factor and a shift per channel."""
    if node.op_type != "BatchNormalization":
        return
    found = [constant_of(value) for value in node.inputs[1:]]
    shape = shape_of(node.inputs[0])
    if shape is None or any(array is None for array in found):
        return
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in found)
    factor = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    scaled = inserted(node, "Mul", [node.inputs[0], _per_channel(node, factor)], shape)
    shifts = _per_channel(node, beta - mean * factor)
    replace(node, inserted(node, "Add", [scaled, shifts], shape))


def negation(node: ir.Node) -> None:
    """A Neg is a product with −1."""
    shape = shape_of(node.outputs[0])
    if node.op_type == "Neg" and shape is not None:
        minus = constant(_graph(node), np.array(-1, np.float32), "minus")
        _put(node, "Mul", [node.inputs[0], minus])


def several_operands(node: ir.Node) -> None:
    """A Sum, Max or Min of any number of operands is a chain of those of two."""
    op, shape = {"Sum": "Add"}.get(node.op_type, node.op_type), shape_of(node.outputs[0])
    if node.op_type not in {"Sum", "Max", "Min"} or shape is None:
        return
    (total, *others) = node.inputs
    if total is None or (op == node.op_type and len(others) == 1):
        return
    for other in others:
        total = inserted(node, op, [total, other], shape)
    replace(node, total)


def other_hard_sigmoid(node: ir.Node) -> None:
    """A HardSigmoid of another slope than torch's, such as Keras': a product, a sum, a Clip."""
    slope, middle = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    shape = shape_of(node.outputs[0])
    if node.op_type != "HardSigmoid" or shape is None:
        return
    if abs(slope - 1 / 6) <= _ROUNDING and middle == 0.5:
        return
    factor, shift, low, high = (
        constant(_graph(node), np.array(number, np.float32), "sigmoid")
        for number in (slope, middle, 0, 1)
    )
    scaled = inserted(node, "Mul", [node.inputs[0], factor], shape)
    shifted = inserted(node, "Add", [scaled, shift], shape)
    replace(node, inserted(node, "Clip", [shifted, low, high], shape))


def automatic_crops(node: ir.Node) -> None:
    """A ConvTranspose that cuts off what its size asks for: the numbers of pixels.

    Raises:
        CannotLower: If pixels would be added instead.
    """
    named = node.attributes.get_string("auto_pad", "NOTSET")
    sizes = node.attributes.get_ints("output_shape", ())
    shape, kernel = shape_of(node.inputs[0]), shape_of(node.inputs[1]) if node.inputs[1:] else None
    if node.op_type != "ConvTranspose" or (named not in _SAME and not sizes) or not kernel:
        return
    upper, before, after = named != "SAME_LOWER", [], []
    strides = node.attributes.get_ints("strides", (1, 1))
    for axis, stride in enumerate(strides):
        extra = node.attributes.get_ints("output_padding", (0, 0))[axis]
        spread = node.attributes.get_ints("dilations", (1, 1))[axis] * (kernel[2 + axis] - 1) + 1
        total = spread - stride
        if sizes and shape is not None:
            total = stride * (shape[2 + axis] - 1) + extra + spread - sizes[axis - len(strides)]
        if total < 0:
            raise CannotLower(
                f"{node.name}: a transposed convolution that adds pixels at its edges"
            )
        first = total // 2 if upper else total - total // 2
        before.append(first)
        after.append(total - first)
    for name in ("auto_pad", "output_shape"):
        node.attributes.pop(name, None)
    node.attributes["pads"] = ir.AttrInt64s("pads", (*before, *after))


def equal_split(node: ir.Node) -> None:
    """A Split in equal parts, whose sizes are not given."""
    shapes = [shape_of(value) for value in node.outputs]
    if node.op_type != "Split" or len(node.inputs) > 1 or not all(shapes):
        return
    axis = node.attributes.get_int("axis", 0)
    sizes = np.array([shape[axis] for shape in shapes if shape], np.int64)
    node.resize_inputs(2)
    node.replace_input_with(1, constant(_graph(node), sizes, "sizes"))
    node.attributes.pop("num_outputs", None)


def assigned_channels(node: ir.Node) -> None:
    """A ScatterND that assigns whole channels: the channels before, the assigned, those behind."""
    if node.op_type != "ScatterND" or node.attributes.get_string("reduction", "none") != "none":
        return
    value, places, update = node.inputs
    shape, part, indices = shape_of(value), shape_of(update), constant_of(places)
    if shape is None or part is None or indices is None or len(part) != 4:
        return
    depth = indices.shape[-1]
    if depth < 2 or indices.shape != (*part[:depth], depth):
        return
    first, count = int(indices.reshape(-1, depth)[0, 1]), part[1]
    whole = np.stack(list(np.indices(part[:depth])), axis=-1)
    whole[..., 1] += first
    if part != (shape[0], count, *shape[2:]) or not np.array_equal(indices, whole):
        return
    assert value is not None
    before = channels_between(node, value, 0, first)
    behind = channels_between(node, value, first + count, shape[1])
    parts = [*before, update, *behind]
    replace(node, inserted(node, "Concat", parts, shape, {"axis": 1}))


def repeated_channels(node: ir.Node) -> None:
    """Every channel several times in a row, as Unsqueeze, Tile, Reshape: a 1×1 convolution."""
    found, readers = _repeated(node), [reader for reader, _ in node.outputs[0].uses()]
    rows_first = any(reader.op_type == "Unsqueeze" for reader in readers)  # See repeated_pixels.
    if found is None or found[1] != 1 or rows_first:
        return
    value, _, times = found
    shape, made = shape_of(value), shape_of(node.outputs[0])
    assert shape is not None
    constants = repeating(_graph(node), shape[1], times)
    replace(node, inserted(node, "Conv", [value, *constants], made))


def repeated_pixels(node: ir.Node) -> None:
    """Every row and then every column several times in a row, as Keras enlarges: a Resize."""
    columns = _repeated(node)
    before = None if columns is None else columns[0].producer()
    rows = None if before is None else _repeated(before)
    if columns is None or rows is None or rows[2] != columns[2]:
        return
    axes, times = [rows[1], columns[1]], columns[2]
    if axes not in ([1, 2], [2, 3]):
        return
    factors = np.ones(4, np.float32)
    factors[axes] = times
    inputs = [rows[0], None, constant(_graph(node), factors, "factors")]
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    made = shape_of(node.outputs[0])
    replace(node, inserted(node, "Resize", inputs, made, attributes))


def _repeated(node: ir.Node) -> tuple[ir.Value, int, int] | None:
    """Return what is repeated along one of four axes, the axis, and how many times."""
    tile = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] else None
    axis = tile.inputs[0].producer() if tile is not None and tile.inputs[0] else None
    if tile is None or axis is None or (tile.op_type, axis.op_type) != ("Tile", "Unsqueeze"):
        return None
    value, repeats = axis.inputs[0], constant_of(tile.inputs[1])
    shape, made, between = (shape_of(one) for one in (value, node.outputs[0], axis.outputs[0]))
    if value is None or shape is None or repeats is None or len(shape) != 4 or len(repeats) != 5:
        return None
    place, times = int(repeats.argmax()), int(repeats.max())
    if times < 2 or list(np.delete(repeats, place)) != [1] * 4 or place == 0:
        return None
    if between != (*shape[:place], 1, *shape[place:]):
        return None
    larger = list(shape)
    larger[place - 1] *= times
    return (value, place - 1, times) if made == tuple(larger) else None


def padding_by_a_number(node: ir.Node) -> None:
    """A Pad by another number than 0: a Pad by 0 of what is that much less, and as much more."""
    value = constant_of(node.inputs[2]) if node.op_type == "Pad" and len(node.inputs) > 2 else None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if value is None or before is None or after is None or not 0 < abs(value.item()) < _LARGEST:
        return
    if node.attributes.get_string("mode", "constant") != "constant":
        return
    number = constant(_graph(node), value.astype(np.float32).reshape(()), "padding")
    less = inserted(node, "Sub", [node.inputs[0], number], before)
    padded = inserted(node, "Pad", [less, node.inputs[1], None, *node.inputs[3:]], after)
    replace(node, inserted(node, "Add", [padded, number], after))


def nothing(node: ir.Node) -> None:
    """Operators that cut off, add or repeat nothing, as arithmetic on sizes writes them."""
    value, shape = node.inputs[0], shape_of(node.outputs[0])
    if value is None or shape is None or shape_of(value) != shape:
        return
    arrays = [constant_of(one) for one in node.inputs[1:]]
    if (
        (
            node.op_type == "Slice"
            and (len(arrays) < 4 or (arrays[3] is not None and (arrays[3] > 0).all()))
        )
        or (node.op_type == "Pad" and arrays[0] is not None and not arrays[0].any())
        or node.op_type in {"Expand", "Tile"}
    ):
        replace(node, value)


_REDUCING = frozenset({"ReduceMean", "ReduceMax"})


def reduction_without_its_axes(node: ir.Node) -> None:
    """A mean or maximum that drops the axes it is over: one that keeps them, then a Reshape."""
    if node.op_type not in _REDUCING or node.attributes.get_int("keepdims", 1) == 1:
        return
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if axes is None or before is None or after is None or len(before) != 4:
        return
    dropped = {int(axis) % 4 for axis in axes.ravel()}
    kept = tuple(1 if axis in dropped else extent for axis, extent in enumerate(before))
    made = inserted(node, node.op_type, [node.inputs[0], node.inputs[1]], kept, {"keepdims": 1})
    target = constant(_graph(node), np.array(after, np.int64), "shape")
    replace(node, inserted(node, "Reshape", [made, target], after))


def split_constants(graph: ir.Graph) -> bool:
    """Fold a Split of a constant, as arithmetic on sizes writes it; tell whether there was one."""
    found = [node for node in graph if node.op_type == "Split" and node.inputs]
    whole = [(node, array) for node in found if (array := constant_of(node.inputs[0])) is not None]
    for node, array in whole:
        sizes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        count, axis = len(node.outputs), node.attributes.get_int("axis", 0)
        places = count if sizes is None else np.cumsum(sizes)[:-1]
        for output, part in zip(node.outputs, np.split(array, places, axis), strict=True):
            output.replace_all_uses_with(constant(graph, part, "part"))
        graph.remove(node, safe=True)
    return bool(whole)


SPELLINGS: tuple[Callable[[ir.Node], None], ...] = (
    relu_of_clip,
    nearest_resize,
    batch_norm,
    negation,
    several_operands,
    other_hard_sigmoid,
    automatic_crops,
    equal_split,
    assigned_channels,
    repeated_channels,
    repeated_pixels,
    padding_by_a_number,
    nothing,
    reduction_without_its_axes,
)
"""All spellings, in the order they are looked for."""


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _put(node: ir.Node, op: str, inputs: Sequence[ir.Value | None]) -> None:
    shape = shape_of(node.outputs[0])
    if shape is not None:
        replace(node, inserted(node, op, inputs, shape))


def _per_channel(node: ir.Node, array: Array) -> ir.Value:
    return constant(_graph(node), array.astype(np.float32).reshape(1, -1, 1, 1), "channels")
