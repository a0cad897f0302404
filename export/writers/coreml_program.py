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
from runtime.formats import Ports
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
    """Builds the program. ``_read`` holds the variable that later nodes read for each value.

    Args:
        graph: The lowered graph.
        dtype: The type of arithmetic.
        scales: The quantization of an int8 program.
        ports: What the program takes and returns; images are float32 of 0 to 255 to it.
    """

    def __init__(
        self,
        graph: Graph,
        dtype: np.dtype[Any],
        scales: Scales | None,
        ports: Ports = "float32",
    ) -> None:
        self._graph, self._dtype, self._scales, self._ports = graph, dtype, scales, ports
        self._casts = dtype == np.float16 and ports != "float16"
        self._constant = Constants(lambda name, array: Builder.const(val=array, name=name)).of
        self._kernels: dict[str, Any] = {}
        self._read: dict[str, Any] = {}

    def program(self, size: tuple[int, int] | None, target: Any) -> Any:
        """Translate the whole graph, for one input size or for any, with a target's operations."""
        extents = size or (get_new_symbol(), get_new_symbol())
        shapes = {self._graph.input: (1, 3, *extents)}
        if (pooling := self._graph.pooling) is not None:
            shapes[pooling.pooled] = (1, pooling.channels, 1, 1)
        kind = types.fp16 if self._ports == "float16" else types.fp32
        specs = {
            name: Builder.TensorSpec(shape=shape, dtype=kind) for name, shape in shapes.items()
        }
        with Function(specs, target) as function:
            function.set_outputs(self._body(function.inputs))
        program = Program()
        program.add_function("main", function)
        return program

    def _body(self, inputs: Mapping[str, Any]) -> list[Any]:
        graph = self._graph
        for value in graph.inputs:
            self._read[value] = self._rounded(value, self._taken(value, inputs[value]))
        for node in graph.nodes:
            made = self._translate(node)
            variables = made if isinstance(made, (list, tuple)) else [made]
            # Where a Relu follows at once, only the Relu's result is rounded.
            rounds = graph.fused_relu(node) is None
            for value, variable in zip(node.outputs, variables, strict=True):
                self._read[value] = self._rounded(value, variable) if rounds else variable
        return [self._handed_out(value) for value in graph.outputs]

    def _taken(self, value: str, given: Any) -> Any:
        """Return an input of the program in its arithmetic, a picture in [0, 1]."""
        if self._casts:
            given = Builder.cast(x=given, dtype="fp16", name=f"{value}/float16")
        if not self._is_image(value):
            return given
        return Builder.mul(x=given, y=self._dtype.type(1 / 255), name=f"{value}/scaled")

    def _handed_out(self, value: str) -> Any:
        """Return the variable that leaves the program under the name of ``value``."""
        variable = self._read[value]
        if self._is_image(value):
            # Whole levels, so that nothing depends on how a system makes bytes of numbers.
            zero, one, white = map(self._dtype.type, (0, 1, 255))
            within = Builder.clip(x=variable, alpha=zero, beta=one, name=f"{value}/clamped")
            levels = Builder.mul(x=within, y=white, name=f"{value}/levels")
            name = f"{value}/image" if self._casts else value
            variable = Builder.round(x=levels, name=name)
        return Builder.cast(x=variable, dtype="fp32", name=value) if self._casts else variable

    def _is_image(self, value: str) -> bool:
        return self._ports == "image" and value in {self._graph.input, self._graph.output}

    def _translate(self, node: Node) -> Any:
        """Return the variable that stands for the node's output, or a list of them."""
        name = node.outputs[0]
        if (self._casts and name in self._graph.outputs) or self._is_image(name):
            name = f"{name}/float16"  # What is behind it bears the output's name.
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
