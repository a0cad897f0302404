"""ONNX files: NCHW, opset 18, float32 input and output in every precision.

float16 files hold float16 weights and compute in float16 between two casts. int8 files are in QDQ
form: every activation passes a QuantizeLinear and a DequantizeLinear with the numbers of the table
of scales, and runtimes turn the operators between two pairs into an integer kernel. Activations are
uint8, because ONNX Runtime leaves convolutions of int8 activations in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.formulas import FORMULAS, NORMALIZATIONS, Formula
from export.graph import Graph, Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_constant,
    quantized_weight,
    rounded_slopes,
    weight_scales,
)
from export.sampling import POOLED
from export.scales import ScaleTable
from export.writers.normalizations import normalization
from export.writers.onnx_functions import NATIVE, Tensor, formula_operands
from export.writers.writing import Constants, Scales, Written, planar_file, scales_for
from runtime.atomic import replacing
from runtime.formats import Precision

_OPSET = 18
# The version that came with opset 18; runtimes reject files of a version newer than they know.
_IR_VERSION = 8

_FLOAT32, _FLOAT16, _UINT8 = (np.dtype(kind) for kind in (np.float32, np.float16, np.uint8))

_Shape = tuple[int | str, ...]


def write_onnx(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
) -> Written:
    """Write ``graph`` as an ONNX file; equal arguments give equal bytes.

    Args:
        graph: Lowered for its target.
        path: The file, replaced if it exists.
        precision: Precision of weights and arithmetic.
        table: The scales; needed for int8.
        size: Height and width of the input, or None to leave them to the app.

    Raises:
        CannotLower: If ONNX, or int8, has no operator for a node of the graph.
        UserError: If int8 is asked for without scales, or the file cannot be written.
    """
    scales = scales_for(graph, path, precision, table, REFUSED)
    dtype = _FLOAT16 if precision == "float16" else _FLOAT32
    model = _Builder(graph, dtype, scales, size).model()
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    found = Counter(node.op_type for node in model.graph.node)
    return planar_file(graph, size, dict(sorted(found.items())))


class _Builder:
    """Collects the nodes, initializers and types of one file.

    A value of the graph may become several tensors of the file: its node's output, and the tensors
    after a cast or a rounding. ``_read`` names the tensor that later nodes read.
    """

    def __init__(
        self,
        graph: Graph,
        dtype: np.dtype[Any],
        scales: Scales | None,
        size: tuple[int, int] | None,
    ) -> None:
        self._graph, self._dtype, self._scales, self._size = graph, dtype, scales, size
        self._channels, self._sizes = graph.channels(), graph.sizes()
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._types: list[onnx.ValueInfoProto] = []
        self._constant = Constants(self._stored).of
        self._read: dict[str, str] = {}

    def model(self) -> onnx.ModelProto:
        """Translate the whole graph."""
        graph = self._graph
        for value in graph.inputs:
            self._begin(value)
        for node in graph.nodes:
            HANDLERS[node.op](self, node)
        types = {known.name: known for known in self._types}
        return helper.make_model(
            helper.make_graph(
                self._nodes,
                "reslite",
                [_type(value, _FLOAT32, self._shape(value)) for value in graph.inputs],
                [types.pop(value) for value in graph.outputs],
                self._initializers,
                value_info=list(types.values()),
            ),
            producer_name="reslite",
            doc_string=(
                f"Restores a picture at {graph.scale} times its size. Input and output: "
                "1 x 3 x height x width, RGB in [0, 1]; the output may overshoot, so clamp it."
            ),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )

    def _begin(self, image: str) -> None:
        if self._scales is not None:
            self._read[image] = self._rounded(image, image, f"{image}/rounded", self._scales)
        elif self._dtype == _FLOAT16:
            self._read[image] = f"{image}/float16"
            self._cast(image, self._read[image], _FLOAT16, self._shape(image))
        else:
            self._read[image] = image

    def emit(
        self,
        node: Node,
        op: str | None = None,
        operands: Sequence[str] | None = None,
        **attributes: Any,
    ) -> None:
        """Add the ONNX operator of ``node``, and the operators that round or cast its results.

        Args:
            node: The node.
            op: Name of the ONNX operator; None if it is the node's.
            operands: Tensors that it reads; None for the tensors of the node's inputs.
            attributes: Attributes of the ONNX operator.
        """
        # Where a Relu follows at once, only the Relu's result is rounded.
        scales = None if self._graph.fused_relu(node) else self._scales
        handed_out = [value for value in node.outputs if value in self._graph.outputs]
        halves = self._dtype == _FLOAT16 and bool(handed_out)
        suffix = "/float32" if scales else "/float16" if halves else ""
        made = {value: f"{value}{suffix}" for value in node.outputs}
        self._add(
            op or node.op,
            self.operands(node) if operands is None else operands,
            {tensor: self._shape(value) for value, tensor in made.items()},
            self._dtype,
            **attributes,
        )
        for value, tensor in made.items():
            self._read[value] = self._rounded(value, tensor, value, scales) if scales else tensor
        if halves:
            for value in handed_out:
                self._cast(made[value], value, _FLOAT32, self._shape(value))

    def convolution(self, node: Node) -> None:
        size = self._graph.kernel_shape(node)[-1]
        pads, groups = [size // 2] * 4, node.integer("groups")
        operands = self._kernel_and_bias(node)
        self.emit(node, operands=operands, kernel_shape=[size, size], pads=pads, group=groups)

    def general_convolution(self, node: Node) -> None:
        self.emit(
            node,
            "Conv",
            self._kernel_and_bias(node),
            kernel_shape=self._graph.kernel_shape(node)[2:],
            strides=[node.integer("stride")] * 2,
            dilations=[node.integer("dilation")] * 2,
            pads=_begins_and_ends(node.sides("pads")),
            group=node.integer("groups"),
        )

    def transposed_convolution(self, node: Node) -> None:
        stride, crops = [node.integer("stride")] * 2, node.sides("crops")
        cropped: dict[str, Any] = {"pads": _begins_and_ends(crops)} if any(crops) else {}
        self.emit(
            node,
            operands=self._kernel_and_bias(node),
            kernel_shape=self._graph.kernel_shape(node)[2:],
            strides=stride,
            group=node.integer("groups"),
            **cropped,
        )

    def pad(self, node: Node) -> None:
        above, below, left, right = node.sides("pads")
        sides = np.array([0, 0, above, left, 0, 0, below, right])
        mode = {"zeros": "constant"}.get(node.text("mode"), node.text("mode"))
        operands = [*self.operands(node), self._constant(f"{node.output}/pads", sides)]
        self.emit(node, operands=operands, mode=mode)

    def max_pool(self, node: Node) -> None:
        strides, pads = [node.integer("stride")] * 2, _begins_and_ends(node.sides("pads"))
        self.emit(node, kernel_shape=node.window(), strides=strides, pads=pads)

    def relu(self, node: Node) -> None:
        if self._scales is None:
            self.emit(node)
        else:
            self._round(node, self._scales, relu=True)

    def requantize(self, node: Node) -> None:
        if self._scales is None:
            self.emit(node, "Identity")
        else:
            self._round(node, self._scales)

    def prelu(self, node: Node) -> None:
        slopes = self._graph.constants[node.inputs[1]]
        if self._scales is not None:
            slopes = rounded_slopes(slopes)
        planes = slopes.astype(self._dtype).reshape(-1, 1, 1)
        self.emit(
            node, operands=[self._read[node.inputs[0]], self._constant(node.inputs[1], planes)]
        )

    def clip(self, node: Node) -> None:
        bounds = [
            self._constant(f"{node.output}/{name}", np.array(node.number(name), self._dtype))
            for name in ("minimum", "maximum")
        ]
        self.emit(node, operands=[*self.operands(node), *bounds])

    def function(self, node: Node) -> None:
        """Add a function of one activation: ONNX's own operator, or its formula."""
        (source,) = self.operands(node)
        if (native := NATIVE.get(node.op)) is not None:
            self.emit(node, native.operator, [source], **native.attributes)
            return
        formula, shape = FORMULAS[node.op], self._shape(node.output)
        operands = self._operands_of(node.output, formula, {"x": (source, shape)}, self._dtype)
        self.emit(node, formula.operator, operands)

    def normalization(self, node: Node) -> None:
        """Add a normalization, which is computed in float32."""
        value, result = node.inputs[0], node.output
        source, shape = self._read[value], self._shape(value)
        if self._dtype == _FLOAT16:
            source = f"{result}/float32.in"
            self._cast(self._read[value], source, _FLOAT32, shape)
        formula, constants = normalization(self._graph, node)
        values = {
            name: (self._constant(f"{result}/norm.{name}", array), array.shape)
            for name, array in constants.items()
        }
        operands = self._operands_of(result, formula, {"x": (source, shape), **values}, _FLOAT32)
        if self._dtype == _FLOAT16:
            whole = f"{result}/float32.out"
            self._add(formula.operator, operands, {whole: shape}, _FLOAT32)
            self.emit(node, "Cast", [whole], to=_onnx_type(_FLOAT16))
        else:
            self.emit(node, formula.operator, operands)

    def _operands_of(
        self,
        name: str,
        formula: Formula,
        values: Mapping[str, Tensor],
        dtype: np.dtype[Any],
    ) -> list[str]:
        return formula_operands(formula, values, name, dtype, self._add, self._constant)

    def split(self, node: Node) -> None:
        sizes = self._constant(f"{node.outputs[0]}/sizes", np.array(node.sizes()))
        self.emit(node, operands=[*self.operands(node), sizes], axis=1)

    def mix(self, node: Node) -> None:
        """Add the product of coefficients and templates; runtimes compute it once, on opening."""
        flat, (kernel,) = f"{node.output}/flat", node.outputs
        extent = self._graph.constants[node.inputs[1]].shape[1]
        self._add("MatMul", self.operands(node), {flat: (extent,)}, self._dtype)
        shape = self._constant(f"{kernel}/shape", np.array(node.shape()))
        self._add("Reshape", [flat, shape], {kernel: node.shape()}, self._dtype)
        self._read[kernel] = kernel

    def operands(self, node: Node) -> list[str]:
        """Return the tensors of a node's inputs."""
        return [
            self._operand(node, name) if self._graph.is_constant(name) else self._read[name]
            for name in node.inputs
        ]

    def _operand(self, node: Node, name: str) -> str:
        """Return the tensor of a constant that is read as an activation."""
        array = self._graph.constants[name]
        if self._scales is None:
            return self._constant(name, array.astype(self._dtype))
        # Unsigned, as activations are.
        integers = (quantized_constant(array).astype(np.int16) + 128).astype(np.uint8)
        operands = (
            self._constant(f"{name}/integers", integers),
            self._constant(f"{name}/scale", np.array(self._scales[name].scale, np.float32)),
            self._constant(f"{name}/zero", np.array(128, np.uint8)),
        )
        made = f"{node.output}/{name}"
        self._add("DequantizeLinear", operands, {made: integers.shape}, _FLOAT32)
        return made

    def _kernel_and_bias(self, node: Node) -> list[str]:
        """Return the tensors that a convolution reads, its value first."""
        if self._scales is None:
            return self.operands(node)
        value, weight, bias = node.inputs
        kernel, axis = self._graph.constants[weight], output_axis(node)
        source = self._scales[value]
        integers = quantized_bias(self._graph.constants[bias], kernel, source, axis)
        scales = bias_scales(kernel, source, axis).astype(np.float32)
        return [
            self._read[value],
            self._dequantized(
                f"{node.output}/weight",
                quantized_weight(kernel, axis),
                weight_scales(kernel, axis),
                axis,
            ),
            self._dequantized(f"{node.output}/bias", integers, scales, 0),
        ]

    def _dequantized(
        self, name: str, integers: NDArray[Any], scales: NDArray[np.float32], axis: int
    ) -> str:
        """Return the dequantized form of the constant integers of one convolution.

        Convolutions share neither integers nor zero points, because ONNX Runtime rewrites both on
        x86 CPUs without VNNI when it is asked for exact sums (``session.x64quantprecision``), and
        fails at a second convolution that reads them.
        """
        operands = (
            self._stored(f"{name}/integers", integers),
            self._constant(f"{name}/scales", scales),
            self._stored(f"{name}/zeros", np.zeros(scales.shape, integers.dtype)),
        )
        self._add("DequantizeLinear", operands, {name: integers.shape}, _FLOAT32, axis=axis)
        return name

    def _round(self, node: Node, scales: Scales, relu: bool = False) -> None:
        """Round a node's operand, or its Relu, to the 8 bits of the node's output."""
        value, source = node.output, self._read[node.inputs[0]]
        self._read[value] = self._rounded(value, source, value, scales, relu)

    def _rounded(
        self, value: str, source: str, target: str, scales: Scales, relu: bool = False
    ) -> str:
        """Round ``source``, or its Relu, to the 8 bits of ``value``; return ``target``, the result.

        If no integers stand for negative numbers, rounding includes the Relu. Otherwise the Relu is
        a Clip of integers, because ONNX Runtime would compute a Relu of real numbers, and the
        convolution before it, in float.
        """
        quantization, shape = scales[value], self._shape(value)
        operands = (
            self._constant(f"{value}/scale", np.array(quantization.scale, np.float32)),
            self._constant(f"{value}/zero", np.array(quantization.zero_point + 128, np.uint8)),
        )
        integers = f"{value}/uint8"
        self._add("QuantizeLinear", (source, *operands), {integers: shape}, _UINT8)
        if relu and quantization.zero_point > -128:
            positive = f"{value}/relu"
            self._add("Clip", (integers, operands[1]), {positive: shape}, _UINT8)
            integers = positive
        self._add("DequantizeLinear", (integers, *operands), {target: shape}, _FLOAT32)
        return target

    def _cast(self, source: str, target: str, dtype: np.dtype[Any], shape: _Shape) -> None:
        self._add("Cast", [source], {target: shape}, dtype, to=_onnx_type(dtype))

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        """Store ``array`` and return its name."""
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def _add(
        self,
        op: str,
        operands: Sequence[str],
        results: Mapping[str, _Shape],
        dtype: np.dtype[Any],
        **attributes: Any,
    ) -> None:
        """Add a node and the types of its results, all of ``dtype``."""
        name = f"{op}:{next(iter(results))}"
        self._nodes.append(helper.make_node(op, operands, list(results), name=name, **attributes))
        self._types += [_type(result, dtype, shape) for result, shape in results.items()]

    def _shape(self, value: str) -> _Shape:
        size, channels = self._sizes[value], self._channels[value]
        if size == POOLED:
            return (1, channels, 1, 1)
        if self._size is not None:
            extents = zip(size, self._size, strict=True)
            return (1, channels, *(extent.of(picture) for extent, picture in extents))
        return (1, channels, size[0].sized("height"), size[1].sized("width"))


HANDLERS: Mapping[str, Callable[[_Builder, Node], None]] = {
    "Conv": _Builder.convolution,
    "GeneralConv": _Builder.general_convolution,
    "ConvTranspose": _Builder.transposed_convolution,
    "Relu": _Builder.relu,
    "LeakyRelu": lambda file, node: file.emit(node, alpha=node.number("slope")),
    "PRelu": _Builder.prelu,
    "Clip": _Builder.clip,
    "Sigmoid": _Builder.emit,
    **dict.fromkeys(FORMULAS, _Builder.function),
    **dict.fromkeys(NORMALIZATIONS, _Builder.normalization),
    "Add": _Builder.emit,
    "Sub": _Builder.emit,
    "Mul": _Builder.emit,
    "Div": _Builder.emit,
    "Max": _Builder.emit,
    "Min": _Builder.emit,
    "Concat": lambda file, node: file.emit(node, axis=1),
    "Split": _Builder.split,
    "DepthToSpace": lambda file, node: file.emit(
        node, blocksize=node.integer("block"), mode=node.attributes["mode"]
    ),
    "Pad": _Builder.pad,
    "MaxPool": _Builder.max_pool,
    "GlobalAveragePool": _Builder.emit,
    "MixTemplates": _Builder.mix,
    "Requantize": _Builder.requantize,
}
"""Writes a node of each operator."""

REFUSED: Mapping[str, str] = {
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
    "SpaceToDepth": "blocks of pixels are read by convolutions; apply 'convolve_blocks' first",
    "Interpolate": "convolutions interpolate; apply 'interpolate_by_convolutions' first",
}
"""Operators that ONNX files cannot hold, and what to do instead."""


def _begins_and_ends(sides: tuple[int, int, int, int]) -> list[int]:
    """Return pixels above, below, left and right in ONNX's order: top and left first."""
    above, below, left, right = sides
    return [above, left, below, right]


def _type(name: str, dtype: np.dtype[Any], shape: _Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _onnx_type(dtype), shape)


def _onnx_type(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))
