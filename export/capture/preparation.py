"""An ONNX model of any exporter made ready to be read.

The model is fixed to one size of pictures, on which all arithmetic on shapes becomes constants, and
computes in float32. onnxscript's optimizer folds constants, normalizations and paddings and infers
shapes; what it leaves is the work of the modules beside this one. The graph that is read from
the result has no size any more, which whoever calls this proves by running both.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnxscript import optimizer

from export.capture.layouts import make_planar
from export.capture.levels import use_unit_range
from export.capture.movements import recognize_movements
from export.capture.onnx_reading import INPUT, OUTPUT
from export.capture.spellings import SPELLINGS, split_constants
from export.capture.vectors import keep_pixel_axes
from export.errors import CannotLower
from runtime.errors import first_line

_EVERYTHING = 2**31
"""Bytes of constants that may be folded."""

_REAL = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def prepare(model: ir.Model, shape: tuple[int, int, int, int]) -> None:
    """Make a model from one picture to one picture ready for ``read_model``, in place.

    Args:
        model: Of opset 18 or newer.
        shape: The shape of the picture, N × C × H × W or N × H × W × C as the file takes it.
    """
    graph = model.graph
    (image,) = graph.inputs
    image.shape = ir.Shape(shape)
    for value in _values(graph):
        if value is not image and not value.is_initializer():
            value.shape = None  # It may hold another size.
    compute_in_float32(graph)
    use_unit_range(graph)
    (image,), (restored,) = graph.inputs, graph.outputs
    image.name, restored.name = INPUT, OUTPUT
    _simplify(model)
    if split_constants(graph):
        _simplify(model)
    for node in list(graph):
        for respell in SPELLINGS:
            if node.graph is not None:
                respell(node)
    keep_pixel_axes(graph)
    recognize_movements(graph)
    make_planar(graph)
    _simplify(model)


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = (value for node in graph for value in node.outputs)
    return [*graph.inputs, *graph.initializers.values(), *made]


def compute_in_float32(graph: ir.Graph) -> None:
    """Make all real numbers of a graph float32: constants, casts and values."""
    for value in _values(graph):
        if value.dtype in _REAL:
            value.dtype = ir.DataType.FLOAT
        array = value.const_value
        if array is not None and array.dtype in _REAL:
            value.const_value = ir.tensor(array.numpy().astype(np.float32), name=value.name)
    for node in graph:
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if tensor.dtype in _REAL:
                    whole = ir.tensor(tensor.numpy().astype(np.float32))
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, whole)
        if node.op_type == "Cast" and ir.DataType(node.attributes.get_int("to")) in _REAL:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)


def _simplify(model: ir.Model) -> None:
    """Fold what is constant, remove what does nothing, and infer all shapes.

    Raises:
        CannotLower: If shapes contradict each other at the chosen size.
    """
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        optimizer.optimize_ir(
            model,
            input_size_limit=_EVERYTHING,
            output_size_limit=_EVERYTHING,
            should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
        )
    except ir.passes.PassError as error:
        cause = error.__cause__ or error
        raise CannotLower(
            f"its arithmetic on shapes cannot be worked out: {first_line(cause)}"
        ) from error
    finally:
        logger.setLevel(level)
