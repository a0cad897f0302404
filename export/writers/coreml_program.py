"""What the operations of a Core ML program have in common: variables, constants and rounding."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from export.graph import Graph, Node
from export.integers import rounded_constant
from export.writers.writing import Constants, Scales
from runtime.hidden_tensorflow import without_tensorflow


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence coremltools' progress bars and its advice about versions of other packages."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


__all__ = ["Builder", "ProgramWriter", "ct", "quiet"]

with quiet(), without_tensorflow():
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types


class ProgramWriter(ABC):
    """Builds the program. ``_read`` holds the variable that later nodes read for each value."""

    def __init__(self, graph: Graph, dtype: np.dtype[Any], scales: Scales | None) -> None:
        self._graph, self._dtype, self._scales = graph, dtype, scales
        self._casts = dtype == np.float16
        self._constant = Constants(lambda name, array: Builder.const(val=array, name=name)).of
        self._kernels: dict[str, Any] = {}
        self._read: dict[str, Any] = {}

    def program(self, size: tuple[int, int] | None) -> Any:
        """Translate the whole graph, for one input size or for any."""
        extents = size or (get_new_symbol(), get_new_symbol())
        shapes = {self._graph.input: (1, 3, *extents)}
        if (pooling := self._graph.pooling) is not None:
            shapes[pooling.pooled] = (1, pooling.channels, 1, 1)
        specs = {
            name: Builder.TensorSpec(shape=shape, dtype=types.fp32)
            for name, shape in shapes.items()
        }
        with Function(specs, ct.target.iOS17) as function:
            function.set_outputs(self._body(function.inputs))
        program = Program()
        program.add_function("main", function)
        return program

    def _body(self, inputs: Mapping[str, Any]) -> list[Any]:
        graph = self._graph
        for value in graph.inputs:
            given = inputs[value]
            if self._casts:
                given = Builder.cast(x=given, dtype="fp16", name=f"{value}/float16")
            self._read[value] = self._rounded(value, given)
        for node in graph.nodes:
            made = self._translate(node)
            variables = made if isinstance(made, (list, tuple)) else [made]
            # Where a Relu follows at once, only the Relu's result is rounded.
            rounds = graph.fused_relu(node) is None
            for value, variable in zip(node.outputs, variables, strict=True):
                self._read[value] = self._rounded(value, variable) if rounds else variable
        return [self._handed_out(value) for value in graph.outputs]

    def _handed_out(self, value: str) -> Any:
        """Return the variable that leaves the program under the name of ``value``."""
        variable = self._read[value]
        return Builder.cast(x=variable, dtype="fp32", name=value) if self._casts else variable

    def _translate(self, node: Node) -> Any:
        """Return the variable that stands for the node's output, or a list of them."""
        name = node.outputs[0]
        if self._casts and name in self._graph.outputs:
            name = f"{name}/float16"  # The cast behind it bears the output's name.
        return self.build(node, name)

    @abstractmethod
    def build(self, node: Node, name: str) -> Any:
        """Build the operation of one node under a name; return its variable, or a list of them."""

    def operand(self, node: Node, index: int = 0) -> Any:
        """Return the variable of one of the node's inputs."""
        return self._variable(node.inputs[index])

    def _variable(self, value: str) -> Any:
        if not self._graph.is_constant(value):
            return self._read[value]
        array = self._graph.constants[value]
        if self._scales is not None:
            array = rounded_constant(array)
        return self._constant(value, array.astype(self._dtype))

    def _rounded(self, value: str, variable: Any) -> Any:
        """Return ``variable`` rounded to the 8 bits of ``value``, in an int8 program."""
        if self._scales is None:
            return variable
        quantization = self._scales[value]
        zero = np.array(quantization.zero_point + 128, np.uint8)
        parameters = {
            "scale": self._constant(f"{value}/scale", np.array(quantization.scale, self._dtype)),
            # Core ML is faster without a zero point; outputs of ReLU do not need one.
            "zero_point": self._constant(f"{value}/zero", zero) if zero else None,
        }
        integers = Builder.quantize(
            input=variable, output_dtype="uint8", name=f"{value}/uint8", **parameters
        )
        return Builder.dequantize(input=integers, name=f"{value}/rounded", **parameters)

    def _number(self, node: Node, attribute: str) -> np.floating[Any]:
        number: np.floating[Any] = self._dtype.type(node.number(attribute))
        return number
