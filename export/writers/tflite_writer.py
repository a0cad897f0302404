"""TFLite files: NHWC, written straight from the graph with LiteRT's own schema, no TensorFlow.

float32 files compute in float32. float16 files store their weights as float16 behind DEQUANTIZE
operators, which XNNPACK and the GPU delegate fold away. int8 files are integer throughout, with
the numbers of the table of scales; their picture and restored picture are int8, or float32 between
a QUANTIZE and a DEQUANTIZE. A Relu is fused into the operator before it where TFLite can do so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from export.errors import CannotLower
from export.graph import Graph, Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_constant,
    quantized_slopes,
    quantized_weight,
    slope_scale,
    weight_scales,
)
from export.operators import Trait
from export.sampling import POOLED
from export.scales import SIGMOID, Quantization, ScaleTable
from export.writers.tflite_schema import GROUPED_CONV_2D, GROWING_MUL, Shape, TFLiteFile, Version
from export.writers.writing import Scales, Written, scales_for
from runtime.atomic import replacing
from runtime.formats import Precision
from runtime.manifest import PoolingTensors, TensorInfo

_CHANNEL_AXIS = 3
# From the graph's layout to output × k × k × input, TFLite's layout of both kernels.
_KERNEL_ORDER = {"Conv": (0, 2, 3, 1), "ConvTranspose": (1, 2, 3, 0)}


def write_tflite(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
    float_io: bool = False,
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

    Raises:
        CannotLower: If TFLite, or int8, has no operator for a node of the graph.
        UserError: If int8 is asked for without scales, or the file cannot be written.
    """
    scales = scales_for(graph, path, precision, table, REFUSED)
    if scales is None:
        float_io = False
    else:
        _check_moves(graph, scales)
    translator = _Translator(graph, precision == "float16", scales, size, float_io)
    content = translator.file_content()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Written(
        input=translator.tensor_info(graph.input),
        output=translator.tensor_info(graph.output),
        pooling=translator.pooling_tensors(),
        operators=translator.file.operators(),
    )


class _Translator:
    """Turns the nodes of one graph into the operators of one file.

    ``_tensors`` holds the tensor of every activation, ``_constants`` the tensor of every constant,
    and ``_fused_relus`` maps the input of each fused Relu to its output.
    """

    def __init__(
        self,
        graph: Graph,
        half_weights: bool,
        scales: Scales | None,
        size: tuple[int, int] | None,
        float_io: bool,
    ) -> None:
        self._graph, self._half_weights, self._scales = graph, half_weights, scales
        self._size, self._float_io = size, float_io
        self._channels, self._sizes = graph.channels(), graph.sizes()
        self._tensors: dict[str, int] = {}
        self._constants: dict[str, int] = {}
        self._fused_relus = {
            node.output: relu.output for node in graph.nodes if (relu := graph.fused_relu(node))
        }
        self.file = TFLiteFile(
            f"Restores a picture at {graph.scale} times its size. {graph.input} and "
            f"{graph.output}: 1 x height x width x 3, RGB in [0, 1]; clamp the result.",
            integer=scales is not None,
        )

    def file_content(self) -> bytes:
        """Translate the whole graph."""
        graph = self._graph
        inputs = {value: self._begin(value) for value in graph.inputs}
        for node in graph.nodes:
            if node.op != "Relu" or node.inputs[0] not in self._fused_relus:
                HANDLERS[node.op](self, node)
        return self.file.serialize(inputs, {value: self._end(value) for value in graph.outputs})

    def tensor_info(self, value: str) -> TensorInfo:
        """Describe the file's input or output."""
        shape = self._shape(value)
        if self._scales is None or self._float_io:
            return TensorInfo(value, "NHWC", "float32", shape)
        found = self._scales[value]
        return TensorInfo(
            value, "NHWC", "int8", shape, scale=found.scale, zero_point=found.zero_point
        )

    def pooling_tensors(self) -> PoolingTensors | None:
        """Describe the further input and output of a file that was cut at its pooling."""
        pooling = self._graph.pooling
        if pooling is None:
            return None
        return PoolingTensors(self.tensor_info(pooling.features), self.tensor_info(pooling.pooled))

    def _begin(self, value: str) -> int:
        if not self._float_io:
            return self._activation(value)
        outside = self.file.add_tensor(value, np.float32, self._shape(value))
        self._requantized(outside, self._activation(value))
        return outside

    def _end(self, value: str) -> int:
        if not self._float_io:
            return self._tensors[value]
        outside = self.file.add_tensor(value, np.float32, self._shape(value))
        inside = self._tensors[value]
        self.file.add_operator("DEQUANTIZE", [inside], [outside], schema.DequantizeOptionsT())
        return outside

    def convolution(self, node: Node) -> None:
        options = schema.Conv2DOptionsT(
            padding=schema.Padding.SAME,
            strideW=1,
            strideH=1,
            fusedActivationFunction=self.activation_function(node),
        )
        operands = [self._tensors[node.inputs[0]], *self._kernel_and_bias(node)]
        version = GROUPED_CONV_2D if node.integer("groups") > 1 else None
        self.emit("CONV_2D", node, options, operands, version)

    def transposed_convolution(self, node: Node) -> None:
        if self._size is None:
            raise CannotLower(
                f"{node.name}: transposed convolutions need fixed shapes in TFLite; export with a "
                "height and width (--size) or for a profile without them"
            )
        if node.integer("groups") > 1:
            raise CannotLower(
                f"{node.name}: TFLite has no transposed convolution in "
                f"{node.integer('groups')} groups; make it dense"
            )
        extents = np.array(self._shape(node.output), np.int32)
        kernel, bias = self._kernel_and_bias(node)
        stride = node.integer("stride")
        self.emit(
            "TRANSPOSE_CONV",
            node,
            schema.TransposeConvOptionsT(schema.Padding.VALID, strideW=stride, strideH=stride),
            [
                self._constant(f"{node.output}/shape", extents),
                kernel,
                self._tensors[node.inputs[0]],
                bias,
            ],
        )

    def _kernel_and_bias(self, node: Node) -> tuple[int, int]:
        value, weight, bias = node.inputs
        kernel, shifts = self._graph.constants[weight], self._graph.constants[bias]
        order = _KERNEL_ORDER[node.op]
        if self._scales is None:
            return self._weights(weight, kernel.transpose(order)), self._weights(bias, shifts)
        axis, source = output_axis(node), self._scales[value]
        integers = quantized_weight(kernel, axis).transpose(order)
        # A bias that convolutions share still has a scale for each of their inputs.
        return (
            self._constant(weight, integers, weight_scales(kernel, axis)),
            self._constant(
                f"{bias}/{node.output}",
                quantized_bias(shifts, kernel, source, axis),
                bias_scales(kernel, source, axis),
            ),
        )

    def prelu(self, node: Node) -> None:
        name, slopes = node.inputs[1], self._graph.constants[node.inputs[1]]
        if self._scales is None:
            alpha = self._weights(name, slopes.reshape(1, 1, -1))
        else:
            integers = quantized_slopes(slopes).reshape(1, 1, -1)
            alpha = self._constant(name, integers, slope_scale(slopes))
        self.emit("PRELU", node, operands=[self._tensors[node.inputs[0]], alpha])

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

    def sigmoid(self, node: Node) -> None:
        if self._scales is None or self._scales[node.output] == SIGMOID:
            self.emit("LOGISTIC", node)
            return
        fixed = self._like(node.output, f"{node.output}/sigmoid", SIGMOID)
        self.file.add_operator("LOGISTIC", [self._tensors[node.inputs[0]]], [fixed])
        self._requantized(fixed, self._activation(node.output))

    def split(self, node: Node) -> None:
        if len(set(node.sizes())) > 1:
            raise CannotLower(f"{node.name}: TFLite splits evenly, not into {node.sizes()}")
        axis = self._constant("channel_axis", np.array(_CHANNEL_AXIS, np.int32))
        operands = [axis, self._tensors[node.inputs[0]]]
        self.emit("SPLIT", node, schema.SplitOptionsT(len(node.outputs)), operands)

    def depth_to_space(self, node: Node) -> None:
        if node.attributes["mode"] != "DCR":
            raise CannotLower(
                f"{node.name}: TFLite shuffles in DCR order only; apply 'use_dcr_shuffles' first"
            )
        options = schema.DepthToSpaceOptionsT(node.integer("block"))
        self.emit("DEPTH_TO_SPACE", node, options)

    def mul(self, node: Node) -> None:
        version = None
        if self._scales is not None:
            first, second = (self._scales[value].scale for value in node.inputs)
            growing = first * second >= self._scales[node.output].scale
            version = GROWING_MUL if growing else None
        self.emit("MUL", node, schema.MulOptionsT(), version=version)

    def average(self, node: Node) -> None:
        axes = self._constant("spatial_axes", np.array([1, 2], np.int32))
        operands = [self._tensors[node.inputs[0]], axes]
        self.emit("MEAN", node, schema.ReducerOptionsT(keepDims=True), operands)

    def requantize(self, node: Node) -> None:
        if self._scales is None:
            raise CannotLower(f"{node.name}: only int8 files requantize; export as int8")
        self._requantized(self._tensors[node.inputs[0]], self._activation(node.output))

    def _requantized(self, source: int, target: int) -> int:
        self.file.add_operator("QUANTIZE", [source], [target], schema.QuantizeOptionsT())
        return target

    def emit(
        self,
        operator: str,
        node: Node,
        options: Any = None,
        operands: Sequence[int] | None = None,
        version: Version | None = None,
    ) -> None:
        """Add an operator that makes the node's outputs, by default from the node's inputs."""
        if operands is None:
            operands = [self._operand(name) for name in node.inputs]
        made = [self._activation(self._fused_relus.get(name, name)) for name in node.outputs]
        self.file.add_operator(operator, operands, made, options, version)

    def _operand(self, name: str) -> int:
        if not self._graph.is_constant(name):
            return self._tensors[name]
        array = self._graph.constants[name]
        spread = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 2, 3, 1)
        if self._scales is None:
            return self._constant(name, spread)
        scale = np.array([self._scales[name].scale], np.float32)
        return self._constant(name, quantized_constant(spread), scale)

    def activation_function(self, node: Node) -> int:
        fused = node.output in self._fused_relus
        functions = schema.ActivationFunctionType
        return int(functions.RELU if fused else functions.NONE)

    def _weights(self, name: str, array: NDArray[np.float32]) -> int:
        """Store weights that the operators read as float32."""
        if not self._half_weights:
            return self._constant(name, array)
        if name not in self._constants:
            halves = self.file.add_constant(f"{name}/float16", array.astype(np.float16))
            self._constants[name] = self.file.add_tensor(name, np.float32, array.shape)
            self.file.add_operator(
                "DEQUANTIZE", [halves], [self._constants[name]], schema.DequantizeOptionsT()
            )
        return self._constants[name]

    def _constant(
        self, name: str, array: NDArray[Any], scales: NDArray[np.floating[Any]] | None = None
    ) -> int:
        """Store a constant once, however many nodes read it."""
        if name not in self._constants:
            self._constants[name] = self.file.add_constant(name, array, scales)
        return self._constants[name]

    def _activation(self, value: str) -> int:
        """Add the tensor that holds ``value``."""
        at_end = value in {*self._graph.inputs, *self._graph.outputs}
        name = f"{value}/int8" if self._float_io and at_end else value
        self._tensors[value] = self._like(value, name)
        return self._tensors[value]

    def _like(self, value: str, name: str, quantization: Quantization | None = None) -> int:
        """Add a tensor of the shape and, unless another is given, the scale of ``value``."""
        if self._scales is None:
            return self.file.add_tensor(name, np.float32, self._shape(value))
        found = quantization or self._scales[value]
        return self.file.add_tensor(
            name, np.int8, self._shape(value), [found.scale], found.zero_point
        )

    def _shape(self, value: str) -> Shape:
        channels, (rows, columns) = self._channels[value], self._sizes[value]
        if (rows, columns) == POOLED:
            return (1, 1, 1, channels)
        if self._size is None:
            return (1, None, None, channels)
        return (1, rows.of(self._size[0]), columns.of(self._size[1]), channels)


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
    "ConvTranspose": _Translator.transposed_convolution,
    "Relu": lambda file, node: file.emit("RELU", node),
    "LeakyRelu": lambda file, node: file.emit(
        "LEAKY_RELU", node, schema.LeakyReluOptionsT(node.number("slope"))
    ),
    "PRelu": _Translator.prelu,
    "Clip": _Translator.clip,
    "Sigmoid": _Translator.sigmoid,
    "Add": lambda file, node: file.emit(
        "ADD", node, schema.AddOptionsT(file.activation_function(node))
    ),
    "Sub": lambda file, node: file.emit(
        "SUB", node, schema.SubOptionsT(file.activation_function(node))
    ),
    "Mul": _Translator.mul,
    "Concat": lambda file, node: file.emit(
        "CONCATENATION", node, schema.ConcatenationOptionsT(_CHANNEL_AXIS)
    ),
    "Split": _Translator.split,
    "DepthToSpace": _Translator.depth_to_space,
    "GlobalAveragePool": _Translator.average,
    "Requantize": _Translator.requantize,
}
"""Writes a node of each operator."""

REFUSED: Mapping[str, str] = {
    "MixTemplates": "TFLite mixes no kernels; apply 'fold_template_bank' first",
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
}
"""Operators that TFLite files cannot hold, and what to do instead."""
