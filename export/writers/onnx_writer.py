"""ONNX files: NCHW, opset 18, float32 input and output in every precision.

float16 files hold float16 weights and compute in float16 between two casts. int8 files are in QDQ
form: every activation passes a QuantizeLinear and a DequantizeLinear with the numbers of the table
of scales, and runtimes turn the operators between two pairs into an integer kernel. Activations are
uint8, because ONNX Runtime leaves convolutions of int8 activations in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph import Graph, Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.scales import ScaleTable
from export.writers.writing import Written, planar_pooling, planar_tensor
from runtime.atomic import replacing
from runtime.errors import UserError
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
        UserError: If int8 is asked for without scales, or the file cannot be written.
    """
    if precision != "int8":
        table = None
    elif table is None:
        raise UserError(f"{path.name}: int8 needs a table of scales; run 'reslite quantize' first")
    dtype = _FLOAT16 if precision == "float16" else _FLOAT32
    model = _Builder(graph, dtype, table, size).model()
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    enlarged = (size[0] * graph.scale, size[1] * graph.scale) if size else None
    return Written(
        input=planar_tensor(graph, graph.input, size),
        output=planar_tensor(graph, graph.output, enlarged),
        pooling=planar_pooling(graph, size),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
    )


class _Builder:
    """Collects the nodes, initializers and types of one file.

    A value of the graph may become several tensors of the file: its node's output, and the tensors
    after a cast or a rounding. ``_read`` names the tensor that later nodes read.
    """

    def __init__(
        self,
        graph: Graph,
        dtype: np.dtype[Any],
        table: ScaleTable | None,
        size: tuple[int, int] | None,
    ) -> None:
        self._graph, self._dtype, self._table, self._size = graph, dtype, table, size
        self._channels, self._resolutions = graph.channels(), graph.resolutions()
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._types: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._read: dict[str, str] = {}

    def model(self) -> onnx.ModelProto:
        """Translate the whole graph."""
        graph = self._graph
        for value in graph.inputs:
            self._begin(value)
        for node in graph.nodes:
            if node.op == "MixTemplates":
                self._mix(node)
            else:
                self._translate(node)
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
        if self._table is not None:
            self._read[image] = self._rounded(image, image, f"{image}/rounded", self._table)
        elif self._dtype == _FLOAT16:
            self._read[image] = f"{image}/float16"
            self._cast(image, self._read[image], _FLOAT16, self._shape(image))
        else:
            self._read[image] = image

    def _translate(self, node: Node) -> None:
        if node.op in {"Requantize", "Relu"} and self._table is not None:
            (value,), source = node.outputs, self._read[node.inputs[0]]
            self._read[value] = self._rounded(value, source, value, self._table, node.op == "Relu")
            return
        # Where a Relu follows at once, only the Relu's result is rounded.
        table = None if self._graph.fused_relu(node) else self._table
        handed_out = [value for value in node.outputs if value in self._graph.outputs]
        halves = self._dtype == _FLOAT16 and bool(handed_out)
        suffix = "/float32" if table else "/float16" if halves else ""
        made = {value: f"{value}{suffix}" for value in node.outputs}
        self._add(
            "Identity" if node.op == "Requantize" else node.op,
            self._operands(node),
            {tensor: self._shape(value) for value, tensor in made.items()},
            self._dtype,
            **_attributes(node, self._graph),
        )
        for value, tensor in made.items():
            self._read[value] = self._rounded(value, tensor, value, table) if table else tensor
        if halves:
            for value in handed_out:
                self._cast(made[value], value, _FLOAT32, self._shape(value))

    def _mix(self, node: Node) -> None:
        """Add the product of coefficients and templates, which runtimes compute when they open."""
        flat, (kernel,) = f"{node.output}/flat", node.outputs
        constants = [self._graph.constants[name] for name in node.inputs]
        operands = [
            self._constant(name, array.astype(self._dtype))
            for name, array in zip(node.inputs, constants, strict=True)
        ]
        self._add("MatMul", operands, {flat: (constants[1].shape[1],)}, self._dtype)
        shape = self._constant(f"{kernel}/shape", np.array(node.shape()))
        self._add("Reshape", [flat, shape], {kernel: node.shape()}, self._dtype)
        self._read[kernel] = kernel

    def _operands(self, node: Node) -> list[str]:
        if node.op in {"Conv", "ConvTranspose"} and self._table is not None:
            return self._integer_operands(node, self._table)
        operands = [
            self._constant(name, self._graph.constants[name].astype(self._dtype))
            if self._graph.is_constant(name)
            else self._read[name]
            for name in node.inputs
        ]
        if node.op == "Split":
            operands.append(self._constant(f"{node.outputs[0]}/sizes", np.array(node.sizes())))
        if node.op == "Clip":
            for bound in ("minimum", "maximum"):
                array = np.array(node.number(bound), self._dtype)
                operands.append(self._constant(f"{node.output}/{bound}", array))
        return operands

    def _integer_operands(self, node: Node, table: ScaleTable) -> list[str]:
        value, weight, bias = node.inputs
        kernel, axis = self._graph.constants[weight], output_axis(node)
        source = table.of(self._graph.origin(value))
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

    def _rounded(
        self, value: str, source: str, target: str, table: ScaleTable, relu: bool = False
    ) -> str:
        """Round ``source``, or its Relu, to the 8 bits of ``value``; return ``target``, the result.

        If no integers stand for negative numbers, rounding includes the Relu. Otherwise the Relu is
        a Clip of integers, because ONNX Runtime would compute a Relu of real numbers, and the
        convolution before it, in float.
        """
        quantization, shape = table.of(self._graph.origin(value)), self._shape(value)
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

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        """Store ``array`` and return its name; equal arrays are stored once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._stored(name, array)
        return self._constants[key]

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
        factor = self._resolutions[value]
        if factor == 0:
            return (1, self._channels[value], 1, 1)
        if self._size is not None:
            return (1, self._channels[value], *(factor * extent for extent in self._size))
        names = ("height", "width")
        extents = names if factor == 1 else (f"{factor}*{name}" for name in names)
        return (1, self._channels[value], *extents)


def _attributes(node: Node, graph: Graph) -> dict[str, Any]:
    match node.op:
        case "Conv":
            size = graph.kernel_shape(node)[-1]
            return {
                "kernel_shape": [size, size],
                "pads": [size // 2] * 4,
                "group": node.integer("groups"),
            }
        case "ConvTranspose":
            stride = [node.integer("stride")] * 2
            return {"kernel_shape": stride, "strides": stride, "group": node.integer("groups")}
        case "LeakyRelu":
            return {"alpha": node.number("slope")}
        case "Concat" | "Split":
            return {"axis": 1}
        case "DepthToSpace":
            return {"blocksize": node.integer("block"), "mode": node.attributes["mode"]}
        case _:
            return {}


def _type(name: str, dtype: np.dtype[Any], shape: _Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _onnx_type(dtype), shape)


def _onnx_type(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))
