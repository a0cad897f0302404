"""TFLite files: NHWC, written straight from the graph with LiteRT's own schema, no TensorFlow.

float32 files compute in float32. float16 files store their weights as float16 behind DEQUANTIZE
operators, which XNNPACK and the GPU delegate fold away. int8 files are integer throughout, with
the numbers of the table of scales; their picture and restored picture are int8, or float32 between
a QUANTIZE and a DEQUANTIZE. A Relu is fused into the operator before it where TFLite can do so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.errors import CannotLower
from export.formulas import FORMULAS, NORMALIZATIONS
from export.graph import Graph, Node
from export.integers import (
    is_maximum,
    quantized_slopes,
    rounded_constant,
    slope_scale,
)
from export.operators import Trait
from export.scales import SIGMOID, ScaleTable
from export.writers.description import NOTHING_KNOWN, Description
from export.writers.tflite_functions import Functions
from export.writers.tflite_schema import GROWING_MUL
from export.writers.tflite_windows import Windows
from export.writers.writing import Scales, Written, scales_for
from runtime.atomic import replacing
from runtime.formats import Precision

_COLUMN_AXIS, _CHANNEL_AXIS = 2, 3
_PIXELS = (1, 2)


def write_tflite(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
    float_io: bool = False,
    description: Description = NOTHING_KNOWN,
) -> Written:
    """Write ``graph`` as a TFLite file; equal arguments give equal bytes.

    Args:
        graph: Lowered for a TFLite profile, so that its shuffles are DCR.
        path: The file, replaced if it exists.
        precision: Precision of weights and arithmetic.
        table: The scales; needed for int8.
        size: Height and width of the input, or None to leave them to the app, which then has to
            call ``resize_tensor_input``.
        float_io: Take and return float32 pictures from an int8 file too.
        description: What the file says of the network, in its metadata.

    Raises:
        CannotLower: If TFLite, or int8, has no operator for a node of the graph.
        UserError: If int8 is asked for without scales, or the file cannot be written.
    """
    scales = scales_for(graph, path, precision, table, REFUSED)
    if scales is None:
        float_io = False
    else:
        _check_moves(graph, scales)
    translator = _Translator(graph, precision == "float16", scales, size, float_io, description)
    content = translator.file_content()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Written(
        input=translator.tensor_info(graph.input),
        output=translator.tensor_info(graph.output),
        pooling=translator.pooling_tensors(),
        operators=translator.file.operators(),
    )


class _Translator(Windows, Functions):
    """Turns the nodes of one graph into the operators of one file."""

    def translate(self, node: Node) -> None:
        """Add the operators of one node."""
        HANDLERS[node.op](self, node)

    def prelu(self, node: Node) -> None:
        name, slopes = node.inputs[1], self._graph.constants[node.inputs[1]]
        if self._scales is None:
            alpha = self._weights(name, slopes.reshape(1, 1, -1))
        else:
            integers = quantized_slopes(slopes).reshape(1, 1, -1)
            alpha = self._constant(name, integers, slope_scale(slopes))
            if is_maximum(slopes) and self._scales[node.inputs[0]] == self._scales[node.output]:
                self._larger(node, alpha)
                return
        self.emit("PRELU", node, operands=[self._tensors[node.inputs[0]], alpha])

    def _larger(self, node: Node, slopes: int) -> None:
        """Compute max(x, slope · x): LiteRT has vector code for both, and none for int8 PRELU."""
        value, product = self._tensors[node.inputs[0]], f"{node.output}/product"
        below = self._like(node.output, product)
        self.file.add_operator("MUL", [value, slopes], [below], schema.MulOptionsT())
        options = schema.MaximumMinimumOptionsT()
        self.emit("MAXIMUM", node, options, [value, below])

    def clip(self, node: Node) -> None:
        """Clip between two constants, which must have the scale of the value they bound."""
        source, result = node.inputs[0], node.output
        value = self._tensors[source]
        if self._scales is not None and self._scales[source] != self._scales[result]:
            value = self._requantized(value, self._like(result, f"{result}/requantized"))
        raised = self._like(result, f"{result}/raised")
        minimum = self._bound(result, "minimum", node.number("minimum"))
        maximum = self._bound(result, "maximum", node.number("maximum"))
        options = schema.MaximumMinimumOptionsT()
        self.file.add_operator("MAXIMUM", [value, minimum], [raised], options)
        self.emit("MINIMUM", node, options, [raised, maximum])

    def _bound(self, value: str, name: str, bound: float) -> int:
        if self._scales is None:
            return self._constant(f"{value}/{name}", np.array(bound, np.float32))
        found = self._scales[value]
        integer = np.clip(round(bound / found.scale) + found.zero_point, -128, 127)
        return self.file.add_constant(
            f"{value}/{name}", integer.astype(np.int8), np.array([found.scale]), found.zero_point
        )

    def extreme(self, node: Node, operator: str) -> None:
        """Add a MAXIMUM or MINIMUM, whose operands must have the scale of its result."""
        operands = [self._at_scale_of(node.output, name) for name in node.inputs]
        self.emit(operator, node, schema.MaximumMinimumOptionsT(), operands)

    def _at_scale_of(self, result: str, name: str) -> int:
        if self._scales is None or self._scales[name] == self._scales[result]:
            return self._operand(name)
        target = self._scales[result]
        if not self._graph.is_constant(name):
            like = self.file.add_tensor(
                f"{result}/{name}", np.int8, self._shape(name), [target.scale], target.zero_point
            )
            return self._requantized(self._tensors[name], like)
        array = rounded_constant(self._graph.constants[name])
        spread = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 2, 3, 1)
        integers = np.rint(spread / np.float32(target.scale)) + target.zero_point
        return self.file.add_constant(
            f"{result}/{name}",
            integers.clip(-128, 127).astype(np.int8),
            np.array([target.scale]),
            target.zero_point,
        )

    def sigmoid(self, node: Node) -> None:
        if self._scales is None or self._scales[node.output] == SIGMOID:
            self.emit("LOGISTIC", node)
            return
        if self._shape(node.output)[1:3] == (1, 1):
            self.table(node, self._scales)
            return
        fixed = self._like(node.output, f"{node.output}/sigmoid", SIGMOID)
        self.file.add_operator("LOGISTIC", [self._tensors[node.inputs[0]]], [fixed])
        self._requantized(fixed, self._activation(node.output))

    def split(self, node: Node) -> None:
        axis = self._constant("channel_axis", np.array(_CHANNEL_AXIS, np.int32))
        value, count = self._tensors[node.inputs[0]], len(node.outputs)
        if len(set(node.sizes())) == 1:
            self.emit("SPLIT", node, schema.SplitOptionsT(count), [axis, value])
            return
        sizes = self._constant(f"{node.outputs[0]}/sizes", np.array(node.sizes(), np.int32))
        self.emit("SPLIT_V", node, schema.SplitVOptionsT(count), [value, sizes, axis])

    def depth_to_space(self, node: Node) -> None:
        if node.attributes["mode"] == "CRD":
            raise CannotLower(
                f"{node.name}: TFLite shuffles in DCR order only; apply 'use_dcr_shuffles' first"
            )
        if node.attributes["mode"] == "ROWS" and self._size is not None:
            self._join_rows(node, node.integer("block"))
            return
        options = schema.DepthToSpaceOptionsT(node.integer("block"))
        self.emit("DEPTH_TO_SPACE", node, options)

    def _join_rows(self, node: Node, block: int) -> None:
        """Shuffle without DEPTH_TO_SPACE.

        In NHWC the columns of a block lie side by side as they are, in DCR order. Its rows are
        channels in turn: each becomes a row of its own, and rows are joined from left to right.
        """
        source, result = node.inputs[0], node.output
        height, width, channels = (extent or 0 for extent in self._shape(source)[1:])
        axis = self._constant("channel_axis", np.array(_CHANNEL_AXIS, np.int32))
        narrow, wide = channels // block, (1, height, width * block, channels // block**2)

        def reshaped(value: int, name: str, shape: tuple[int, ...], target: int) -> int:
            sizes = np.array(shape, np.int32)
            operands = [value, self._constant(f"{result}/{name}", sizes)]
            self.file.add_operator("RESHAPE", operands, [target], schema.ReshapeOptionsT(sizes))
            return target

        pieces = [
            self._like(result, f"{result}/piece.{row}", shape=(1, height, width, narrow))
            for row in range(block)
        ]
        options = schema.SplitOptionsT(block)
        self.file.add_operator("SPLIT", [axis, self._tensors[source]], pieces, options)
        rows = [
            reshaped(
                piece, "row.shape", wide, self._like(result, f"{result}/row.{row}", shape=wide)
            )
            for row, piece in enumerate(pieces)
        ]
        joined = self._like(
            result, f"{result}/rows", shape=(1, height, width * block**2, channels // block**2)
        )
        options = schema.ConcatenationOptionsT(_COLUMN_AXIS)
        self.file.add_operator("CONCATENATION", rows, [joined], options)
        shape = (1, height * block, width * block, channels // block**2)
        reshaped(joined, "shape", shape, self._activation(result))

    def mul(self, node: Node) -> None:
        version = None
        if self._scales is not None:
            first, second = (self._scales[value].scale for value in node.inputs)
            growing = first * second >= self._scales[node.output].scale
            version = GROWING_MUL if growing else None
        self.emit("MUL", node, schema.MulOptionsT(), version=version)

    def reduced(self, node: Node, operator: str, axes: tuple[int, ...]) -> None:
        """Reduce some axes to one value each."""
        name = "spatial_axes" if axes == _PIXELS else "channel_axes"
        over = self._constant(name, np.array(axes, np.int32))
        operands = [self._tensors[node.inputs[0]], over]
        self.emit(operator, node, schema.ReducerOptionsT(keepDims=True), operands)

    def requantize(self, node: Node) -> None:
        if self._scales is None:
            raise CannotLower(f"{node.name}: only int8 files requantize; export as int8")
        self._requantized(self._tensors[node.inputs[0]], self._activation(node.output))


def _check_moves(graph: Graph, scales: Scales) -> None:
    """Refuse operators that copy int8 values between activations of different scales."""
    for node in graph.nodes:
        values = (*node.inputs, *node.outputs)
        if Trait.MOVES in node.operator.traits and len({scales[value] for value in values}) > 1:
            raise CannotLower(
                f"{node.name}: {node.op} moves int8 values unchanged, but the table of scales "
                f"gives {', '.join(values)} different scales; tie them or requantize between them"
            )


HANDLERS: Mapping[str, Callable[[_Translator, Node], None]] = {
    "Conv": _Translator.convolution,
    "GeneralConv": _Translator.general_convolution,
    "ConvTranspose": _Translator.transposed_convolution,
    "Relu": lambda file, node: file.emit("RELU", node),
    "LeakyRelu": lambda file, node: file.emit(
        "LEAKY_RELU", node, schema.LeakyReluOptionsT(node.number("slope"))
    ),
    "PRelu": _Translator.prelu,
    "Clip": _Translator.clip,
    "Sigmoid": _Translator.sigmoid,
    **dict.fromkeys(FORMULAS, _Translator.function),
    **dict.fromkeys(NORMALIZATIONS, _Translator.normalization),
    "Add": lambda file, node: file.emit(
        "ADD", node, schema.AddOptionsT(file.activation_function(node))
    ),
    "Sub": lambda file, node: file.emit(
        "SUB", node, schema.SubOptionsT(file.activation_function(node))
    ),
    "Mul": _Translator.mul,
    "Div": _Translator.quotient,
    "Max": lambda file, node: file.extreme(node, "MAXIMUM"),
    "Min": lambda file, node: file.extreme(node, "MINIMUM"),
    "Concat": lambda file, node: file.emit(
        "CONCATENATION", node, schema.ConcatenationOptionsT(_CHANNEL_AXIS)
    ),
    "Split": _Translator.split,
    "DepthToSpace": _Translator.depth_to_space,
    "Pad": _Translator.pad,
    "MaxPool": _Translator.max_pool,
    "GlobalAveragePool": lambda file, node: file.reduced(node, "MEAN", _PIXELS),
    "GlobalMaxPool": lambda file, node: file.reduced(node, "REDUCE_MAX", _PIXELS),
    "ChannelMax": lambda file, node: file.reduced(node, "REDUCE_MAX", (_CHANNEL_AXIS,)),
    "Requantize": _Translator.requantize,
}
"""Writes a node of each operator."""

REFUSED: Mapping[str, str] = {
    "MixTemplates": "TFLite mixes no kernels; apply 'fold_template_bank' first",
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
    "SpaceToDepth": "blocks of pixels are read by convolutions; apply 'convolve_blocks' first",
    "Interpolate": "convolutions interpolate; apply 'interpolate_by_convolutions' first",
}
"""Operators that TFLite files cannot hold, and what to do instead."""
