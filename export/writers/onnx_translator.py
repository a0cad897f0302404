"""What the operators of an ONNX file have in common: tensors, constants, types, roundings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    quantized_constant,
    quantized_weight,
    weight_scales,
)
from export.sampling import POOLED
from export.writers.writing import Constants, Scales

_OPSET = 18
# The version that came with opset 18; runtimes reject files of a version newer than they know.
_IR_VERSION = 8

FLOAT32, FLOAT16, _UINT8 = (np.dtype(kind) for kind in (np.float32, np.float16, np.uint8))

_Shape = tuple[int | str, ...]


class Translator(ABC):
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
            self.translate(node)
        types = {known.name: known for known in self._types}
        return helper.make_model(
            helper.make_graph(
                self._nodes,
                "reslite",
                [_type(value, FLOAT32, self._shape(value)) for value in graph.inputs],
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

    @abstractmethod
    def translate(self, node: Node) -> None:
        """Add the operators of one node."""

    def _begin(self, image: str) -> None:
        if self._scales is not None:
            self._read[image] = self._rounded(image, image, f"{image}/rounded", self._scales)
        elif self._dtype == FLOAT16:
            self._read[image] = f"{image}/float16"
            self._cast(image, self._read[image], FLOAT16, self._shape(image))
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
        halves = self._dtype == FLOAT16 and bool(handed_out)
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
                self._cast(made[value], value, FLOAT32, self._shape(value))

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
        self._add("DequantizeLinear", operands, {made: integers.shape}, FLOAT32)
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
        self._add("DequantizeLinear", operands, {name: integers.shape}, FLOAT32, axis=axis)
        return name

    def _round(self, node: Node, scales: Scales, relu: bool = False) -> None:
        """Round a node's operand, or its Relu, to the 8 bits of the node's output."""
        value, source = node.output, self._read[node.inputs[0]]
        self._read[value] = self._rounded(value, source, value, scales, relu)

    def _rounded(
        self, value: str, source: str, target: str, scales: Scales, relu: bool = False
    ) -> str:
        """Round ``source``, or its Relu, to the 8 bits of ``value``; return ``target``, the result.

        If no integers stand for negative numbers, rounding includes the Relu. Otherwise the Relu
        follows the rounding and is rounded once more, with the same numbers. It is a LeakyRelu
        without slope: ONNX Runtime has one integer kernel for that, and none for a Relu, and NPUs
        take it, other than a Clip of integers.
        """
        quantization, shape = scales[value], self._shape(value)
        operands = (
            self._constant(f"{value}/scale", np.array(quantization.scale, np.float32)),
            self._constant(f"{value}/zero", np.array(quantization.zero_point + 128, np.uint8)),
        )

        def rounded(source: str, integers: str, target: str) -> str:
            self._add("QuantizeLinear", (source, *operands), {integers: shape}, _UINT8)
            self._add("DequantizeLinear", (integers, *operands), {target: shape}, FLOAT32)
            return target

        integers = f"{value}/uint8"
        if not relu or quantization.zero_point == -128:
            return rounded(source, integers, target)
        signed = rounded(source, f"{value}/signed.uint8", f"{value}/signed")
        self._add("LeakyRelu", [signed], {f"{value}/relu": shape}, FLOAT32, alpha=0.0)
        return rounded(f"{value}/relu", integers, target)

    def _cast(self, source: str, target: str, dtype: np.dtype[Any], shape: _Shape) -> None:
        self._add("Cast", [source], {target: shape}, dtype, to=onnx_type(dtype))

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


def _type(name: str, dtype: np.dtype[Any], shape: _Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx_type(dtype), shape)


def onnx_type(dtype: np.dtype[Any]) -> int:
    """Return ONNX's number of a type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype))
