"""Functions of one activation, quotients and normalizations in TFLite files.

In float a function is TFLite's own operator, or its formula. In int8 it is an operator that LiteRT
computes from a table of 256 rounded results, or such a table in the file: a GATHER from it, by the
integers as int32, which is exact on every runtime, but slower than an operator of its own.

Quotients and normalizations are computed in float32 in int8 files, too, between a DEQUANTIZE and a
QUANTIZE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from export.formulas import FORMULAS, QUOTIENT, Formula
from export.graph import Node
from export.integers import rounded_constant
from export.tables import table_of
from export.writers.normalizations import normalization, shape_of
from export.writers.tflite_schema import Shape, TFLiteFile
from export.writers.tflite_translator import Translator
from export.writers.writing import Scales


@dataclass(frozen=True)
class Native:
    """A TFLite operator that computes a function.

    Attributes:
        operator: Its name in the schema.
        options: Makes its options.
        rounds: Whether LiteRT computes it in int8 from a table of rounded results, at any scale.
    """

    operator: str
    options: Callable[[], Any] = lambda: None
    rounds: bool = False


NATIVE: Mapping[str, Native] = {
    "Gelu": Native("GELU", lambda: schema.GeluOptionsT(approximate=False), rounds=True),
    "GeluTanh": Native("GELU", lambda: schema.GeluOptionsT(approximate=True), rounds=True),
    "Tanh": Native("TANH", rounds=True),
    # Its int8 kernel rounds several times, so that single results are a quantum off.
    "HardSwish": Native("HARD_SWISH", schema.HardSwishOptionsT),
    "Sqrt": Native("SQRT"),
    "Exp": Native("EXP", schema.ExpOptionsT),
    "Abs": Native("ABS", schema.AbsOptionsT),
}
"""By the names of ``export.formulas.FORMULAS``."""

OPERATORS: Mapping[str, Native] = {
    "Add": Native("ADD", schema.AddOptionsT),
    "Sub": Native("SUB", schema.SubOptionsT),
    "Mul": Native("MUL", schema.MulOptionsT),
    "Div": Native("DIV", schema.DivOptionsT),
    "Max": Native("MAXIMUM", schema.MaximumMinimumOptionsT),
    "Min": Native("MINIMUM", schema.MaximumMinimumOptionsT),
    "Abs": Native("ABS", schema.AbsOptionsT),
    "Exp": Native("EXP", schema.ExpOptionsT),
    "Log": Native("LOG"),
    "Sqrt": Native("SQRT"),
    "Tanh": Native("TANH"),
    "Sigmoid": Native("LOGISTIC"),
    "MeanOfChannels": Native("MEAN", lambda: schema.ReducerOptionsT(keepDims=True)),
    "MeanOfRows": Native("MEAN", lambda: schema.ReducerOptionsT(keepDims=True)),
    "MeanOfPixels": Native("MEAN", lambda: schema.ReducerOptionsT(keepDims=True)),
    "Mix": Native("CONV_2D", lambda: schema.Conv2DOptionsT(strideW=1, strideH=1)),
}
"""The operators of formulas; TFLite has no Erf, but a GELU."""


MEANS: Mapping[str, tuple[int, ...]] = {
    "MeanOfChannels": (3,),
    "MeanOfRows": (2,),
    "MeanOfPixels": (1, 2),
}
"""The axes of N × H × W × C that the means of formulas are over."""

Tensor = tuple[int, Shape]
"""A tensor of a file, and its shape."""


class Functions(Translator):
    """Translates functions, normalizations and quotients."""

    def function(self, node: Node) -> None:
        """Add a function of one activation: TFLite's own operator, its formula or its table."""
        (value,), native = node.inputs, NATIVE.get(node.op)
        source, shape = self._tensors[value], self._shape(value)
        if native is not None and (native.rounds or self._scales is None):
            self.emit(native.operator, node, native.options())
        elif self._scales is None:
            self._real(node, FORMULAS[node.op], {"x": (source, shape)})
        else:
            self.table(node, self._scales)

    def table(self, node: Node, scales: Scales) -> None:
        """Add a table of the int8 results of a function of one activation."""
        (value,), result = node.inputs, node.output
        table = table_of(node, scales[value], scales[result])
        target, shape = self._activation(result), self._shape(value)
        look_up(self.file, table, self._tensors[value], target, shape, result)

    def normalization(self, node: Node) -> None:
        """Add a normalization, in real numbers."""
        formula, constants = normalization(self._graph, node)
        values: dict[str, Tensor] = {"x": self._as_real(node, node.inputs[0])}
        for name, array in constants.items():
            spread = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
            values[name] = (self._constant(f"{node.output}/norm.{name}", spread), spread.shape)
        self._real(node, formula, values)

    def quotient(self, node: Node) -> None:
        """Add a quotient, in real numbers."""
        first, second = (self._as_real(node, name) for name in node.inputs)
        self._real(node, QUOTIENT, {"x": first, "y": second})

    def _as_real(self, node: Node, name: str) -> Tensor:
        """Return the float32 tensor of an activation or a constant."""
        if self._graph.is_constant(name):
            array = self._graph.constants[name]
            array = array if self._scales is None else rounded_constant(array)
            spread = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 2, 3, 1)
            return self._constant(f"{name}/real", spread), spread.shape
        source, shape = self._tensors[name], self._shape(name)
        if self._scales is None:
            return source, shape
        made = self.file.add_tensor(f"{node.output}/{name}.real", np.float32, shape)
        self.file.add_operator("DEQUANTIZE", [source], [made], schema.DequantizeOptionsT())
        return made, shape

    def _real(self, node: Node, formula: Formula, values: Mapping[str, Tensor]) -> None:
        """Add a formula of real numbers; in an int8 file, round its result."""
        operands = formula_operands(self.file, formula, values, node.output)
        last = OPERATORS[formula.operator]
        if self._scales is None:
            self.emit(last.operator, node, last.options(), operands)
            return
        shape = self._shape(node.output)
        made = self.file.add_tensor(f"{node.output}/real", np.float32, shape)
        self.file.add_operator(last.operator, operands, [made], last.options(), integer=False)
        self._requantized(made, self._activation(node.output))


def formula_operands(
    file: TFLiteFile, formula: Formula, values: Mapping[str, Tensor], name: str
) -> list[int]:
    """Add all of a formula but its last operator, in float32; return the operands of the last.

    Args:
        file: The file.
        formula: The formula.
        values: Its values.
        name: The name of its result, with which the names of all tensors begin.
    """
    numbers = count()

    def apply(operator: str, operands: list[Tensor]) -> Tensor:
        if operator == "MeanOfPixels":
            # LiteRT adds one number after another: of rows first, so that fewer errors add up.
            operands = [apply("MeanOfRows", operands)]
        shape = shape_of(operator, operands, MEANS)
        made = file.add_tensor(f"{name}/{operator.lower()}.{next(numbers)}", np.float32, shape)
        tensors = [tensor for tensor, _ in operands]
        native = OPERATORS[operator]
        if operator in MEANS:
            axes = np.array(MEANS[operator], np.int32)
            tensors.append(file.add_constant(f"{name}/axes.{next(numbers)}", axes))
        elif operator == "Mix":
            zeros = np.zeros(shape[-1] or 0, np.float32)
            tensors.append(file.add_constant(f"{name}/zeros.{next(numbers)}", zeros))
        file.add_operator(native.operator, tensors, [made], native.options(), integer=False)
        return made, shape

    def number(value: float) -> Tensor:
        constant = np.array(value, np.float32)
        return file.add_constant(f"{name}/number.{next(numbers)}", constant), ()

    return [tensor for tensor, _ in formula.operands(values, apply, number)]


def look_up(
    file: TFLiteFile,
    table: NDArray[np.int8],
    source: int,
    target: int,
    shape: Shape,
    name: str,
) -> None:
    """Add the operators that look the results for int8 integers up in a table.

    Args:
        file: The file.
        table: The results for −128 … 127.
        source: The tensor of the integers.
        target: The tensor of the results.
        shape: The shape of both.
        name: The name of the result, with which the names of all tensors begin.
    """
    wide, places = (file.add_tensor(f"{name}/{n}", np.int32, shape) for n in ("wide", "places"))
    first = file.add_constant(f"{name}/first", np.array(128, np.int32))
    results = file.add_constant(f"{name}/table", table)
    file.add_operator("CAST", [source], [wide], schema.CastOptionsT())
    file.add_operator("ADD", [wide, first], [places], schema.AddOptionsT(), integer=False)
    file.add_operator("GATHER", [results, places], [target], schema.GatherOptionsT(axis=0))
