"""What the operations of a Core AI program have in common: values, constants, shapes and rounding.

``coreai.authoring`` is the library's supported interface. Constants alone are made below it: the
names that it gives them differ from process to process, and equal files would have other bytes.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import GenericAlias
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from export.graph import Graph, Node
from export.integers import rounded_constant
from export.sampling import POOLED
from export.writers.writing import Constants, Scales
from runtime.engines.coreai_library import check_library

check_library()

import coreai.authoring as ca  # noqa: E402  (Refused above, if it is missing or not known.)
from coreai._compiler.dialects.coreai import ConstantOp  # noqa: E402
from coreai._compiler.ir import DenseResourceElementsAttr, DictAttr, StringAttr  # noqa: E402
from coreai.authoring.constant import constant  # noqa: E402

__all__ = ["FUNCTION", "ProgramWriter", "ca", "signed", "unsigned"]

FUNCTION = "main"
"""The name by which apps load the program's function."""

FLOAT32 = np.dtype(np.float32)

Shape = tuple[int, ...]
"""Extents of a tensor; −1 where the app may choose."""

_INLINE = 16
"""Constants of more numbers are stored as resources."""


def unsigned(*numbers: int) -> NDArray[np.uint32]:
    """Return sizes, as the library's operations read them."""
    return np.array(numbers, np.uint32)


def signed(*numbers: int) -> NDArray[np.int32]:
    """Return axes and places, which may count from the end."""
    return np.array(numbers, np.int32)


class ProgramWriter(ABC):
    """Builds the program. ``_read`` holds the value that later nodes read for each of the graph's.

    Args:
        graph: Lowered for its target.
        dtype: The type of its arithmetic: float32 or float16.
        scales: The scales of an int8 program.
        size: Height and width of the picture, or None for any.
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
        self._constant = Constants(_stored).of
        self._kernels: dict[str, Any] = {}
        self._read: dict[str, Any] = {}

    def program(self) -> Any:
        """Translate the whole graph."""

        def main(*inputs: Any) -> tuple[Any, ...]:
            return self._body(inputs)

        # The decorator reads types of inputs and outputs from the function's signature. It names
        # inputs as parameters are called, but names of foreign networks may hold any character.
        names = {f"input{n}": name for n, name in enumerate(self._graph.inputs)}
        types = {one: Annotated[ca.Value, self._type(name)] for one, name in names.items()}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        given = [inspect.Parameter(one, kind) for one in names]
        made = tuple(Annotated[ca.Value, self._type(name)] for name in self._graph.outputs)
        main.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
        main.__annotations__ = {**types, "return": GenericAlias(tuple, made)}
        module = ca.Module.create()
        with module:
            built: Any = ca.graph(main, provided_name=FUNCTION)._callable
            built.arg_attrs = [
                DictAttr.get({"coreai.name": StringAttr.get(name)}) for name in names.values()
            ]
        return ca.AIProgram(module)

    def _body(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        graph = self._graph
        for name, given in zip(graph.inputs, inputs, strict=True):
            if self._scales is not None:
                self._read[name] = self._rounded(name, given, FLOAT32)
            else:
                self._read[name] = cast(given, FLOAT32, self._dtype)
        for node in graph.nodes:
            made = self.build(node)
            values = made if isinstance(made, list) else [made]
            # Where a Relu follows at once, only the Relu's result is rounded.
            rounds = self._scales is not None and graph.fused_relu(node) is None
            for name, value in zip(node.outputs, values, strict=True):
                known = self._refined(name, value)
                self._read[name] = self._rounded(name, known, self._dtype) if rounds else known
        return tuple(cast(self._read[name], self._dtype, FLOAT32) for name in graph.outputs)

    @abstractmethod
    def build(self, node: Node) -> Any:
        """Build the operations of one node; return its value, or a list of them."""

    def operand(self, node: Node, index: int = 0) -> Any:
        """Return the value of one of the node's inputs."""
        return self._value(node.inputs[index])

    def number(self, number: float) -> NDArray[Any]:
        """Return a number in the type of the arithmetic."""
        return np.array(number, self._dtype)

    def _value(self, name: str) -> Any:
        if not self._graph.is_constant(name):
            return self._read[name]
        array = self._graph.constants[name]
        if self._scales is not None:
            array = rounded_constant(array)
        return self._constant(name, array.astype(self._dtype))

    def _rounded(self, name: str, value: Any, dtype: np.dtype[Any]) -> Any:
        """Return ``value``, of a type, rounded to the 8 bits of ``name``, in an int8 program."""
        assert self._scales is not None
        quantization = self._scales[name]
        zero, whole = np.array(quantization.zero_point + 128, np.uint8), np.int32(0)
        scale = np.array(quantization.scale)
        given, kept = scale.astype(dtype), scale.astype(self._dtype)
        integers = ca.quantize(value, given, zero, dtype.type(0), whole)
        return ca.dequantize(integers, kept, zero, self.number(0), whole)

    def shape(self, name: str) -> Shape:
        """Return the shape of one of the graph's values."""
        channels, size = self._channels[name], self._sizes[name]
        if size == POOLED:
            return (1, channels, 1, 1)
        if self._size is None:
            return (1, channels, -1, -1)
        extents = zip(size, self._size, strict=True)
        return (1, channels, *(extent.of(picture) for extent, picture in extents))

    def _type(self, name: str) -> Any:
        return ca.TensorType(self.shape(name), FLOAT32, name)

    def _refined(self, name: str, value: Any) -> Any:
        """Return ``value`` with the shape that the graph knows and the library lost."""
        found = tuple(extent if extent >= 0 else -1 for extent in value.type.shape)
        shape = self.shape(name)
        return value if found == shape else ca.cast(value, ca.TensorType(shape, self._dtype))


def cast(value: Any, source: np.dtype[Any], target: np.dtype[Any]) -> Any:
    """Return a value in another type."""
    return value if source == target else ca.cast(value, target.type)


def _stored(name: str, array: NDArray[Any]) -> Any:
    """Return the value of a constant that is stored under a name."""
    if array.size <= _INLINE:
        return constant(array)
    kind = ca.TensorType(array.shape, array.dtype)._to_mlir()
    content: Any = np.ascontiguousarray(array)
    operation: Any = ConstantOp
    attribute = DenseResourceElementsAttr.get_from_buffer(content, name, kind)
    return ca.Value._from_mlir(operation(value=attribute).result)
