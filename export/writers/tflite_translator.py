"""What the operators of a TFLite file have in common: tensors, constants, scales and names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from export.graph import Graph, Node
from export.integers import quantized_constant
from export.sampling import POOLED
from export.scales import PIXELS, Quantization
from export.writers.description import NOTHING_KNOWN, RANGE, Description
from export.writers.tflite_metadata import NAME as METADATA
from export.writers.tflite_metadata import TensorText, tflite_metadata
from export.writers.tflite_schema import Shape, TFLiteFile, Version
from export.writers.writing import Scales
from runtime.manifest import PoolingTensors, TensorInfo


class Translator(ABC):
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
        description: Description = NOTHING_KNOWN,
    ) -> None:
        self._graph, self._half_weights, self._scales = graph, half_weights, scales
        self._size, self._float_io, self._description = size, float_io, description
        self._channels, self._sizes = graph.channels(), graph.sizes()
        self._tensors: dict[str, int] = {}
        self._constants: dict[str, int] = {}
        self._fused_relus = {
            node.output: relu.output for node in graph.nodes if (relu := graph.fused_relu(node))
        }
        self.file = TFLiteFile(
            f"{self._summary()} {graph.input}: {self._text(graph.input)}. {graph.output}: "
            f"{self._text(graph.output)}.",
            integer=scales is not None,
        )

    def file_content(self) -> bytes:
        """Translate the whole graph."""
        graph = self._graph
        inputs = {value: self._begin(value) for value in graph.inputs}
        for node in graph.nodes:
            if node.op != "Relu" or node.inputs[0] not in self._fused_relus:
                self.translate(node)
        outputs = {value: self._end(value) for value in graph.outputs}
        metadata = tflite_metadata(
            self._summary(),
            [*map(self._told, inputs)],
            [*map(self._told, outputs)],
            self._description,
        )
        self.file.add_metadata(METADATA, metadata)
        return self.file.serialize(inputs, outputs)

    def _summary(self) -> str:
        return f"Restores a picture at {self._graph.scale} times its size."

    def _text(self, value: str) -> str:
        """Say what the numbers of an input or output mean."""
        kind = "RGB" if self._is_picture(value) else f"{self._channels[value]} features"
        of = f"1 x height x width x {self._channels[value]}"
        if self._scales is not None and not self._float_io:
            found = self._scales[value]
            if found == PIXELS and self._is_picture(value):
                return f"{of}, 8-bit RGB as int8: the pixel of 0 to 255 minus 128"
            return f"{of}, {kind} as int8: (number - {found.zero_point}) x {found.scale:g}"
        if not self._is_picture(value):
            return f"{of}, {kind}"
        return f"{of}, {RANGE if value == self._graph.output else 'RGB in [0, 1]'}"

    def _told(self, value: str) -> TensorText:
        limits = None
        if self._scales is not None and not self._float_io:
            limits = (-128.0, 127.0)
        elif value == self._graph.input:
            limits = (0.0, 1.0)
        _, height, width, _ = self._shape(value)
        size = None if height is None or width is None else (height, width)
        return TensorText(
            value,
            self._text(value),
            self._is_picture(value),
            limits,
            size,
        )

    def _is_picture(self, value: str) -> bool:
        return value in (self._graph.input, self._graph.output)

    @abstractmethod
    def translate(self, node: Node) -> None:
        """Add the operators of one node."""

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
        """Return what follows in the same operator: a fused Relu, or nothing."""
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

    def _like(
        self,
        value: str,
        name: str,
        quantization: Quantization | None = None,
        shape: Shape | None = None,
    ) -> int:
        """Add a tensor of the shape and the scale of ``value``, unless others are given."""
        extents = self._shape(value) if shape is None else shape
        if self._scales is None:
            return self.file.add_tensor(name, np.float32, extents)
        found = quantization or self._scales[value]
        return self.file.add_tensor(name, np.int8, extents, [found.scale], found.zero_point)

    def _shape(self, value: str) -> Shape:
        channels, (rows, columns) = self._channels[value], self._sizes[value]
        if (rows, columns) == POOLED:
            return (1, 1, 1, channels)
        if self._size is None:
            return (1, None, None, channels)
        return (1, rows.of(self._size[0]), columns.of(self._size[1]), channels)
