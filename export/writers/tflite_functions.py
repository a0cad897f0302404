"""Functions of one activation in TFLite files.

In float a function is TFLite's own operator, or its formula. In int8 it is an operator that LiteRT
computes from a table of 256 rounded results, or such a table in the file: a GATHER from it, by the
integers as int32, which is exact on every runtime, but slower than an operator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from export.formulas import FORMULAS, Formula
from export.graph import Node
from export.tables import table_of
from export.writers.tflite_schema import Shape, TFLiteFile
from export.writers.tflite_translator import Translator


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
}
"""The operators of formulas; TFLite has no Erf, but a GELU."""


class Functions(Translator):
    """Translates functions of one activation."""

    def function(self, node: Node) -> None:
        """Add a function of one activation: TFLite's own operator, its formula or its table."""
        (value,), result, native = node.inputs, node.output, NATIVE.get(node.op)
        source, shape = self._tensors[value], self._shape(value)
        if native is not None and (native.rounds or self._scales is None):
            self.emit(native.operator, node, native.options())
        elif self._scales is None:
            formula = FORMULAS[node.op]
            operands = formula_operands(self.file, formula, {"x": source}, shape, result)
            last = OPERATORS[formula.operator]
            self.emit(last.operator, node, last.options(), operands)
        else:
            table = table_of(node, self._scales[value], self._scales[result])
            look_up(self.file, table, source, self._activation(result), shape, result)


def formula_operands(
    file: TFLiteFile, formula: Formula, values: Mapping[str, int], shape: Shape, name: str
) -> list[int]:
    """Add all of a formula but its last operator, in float32; return the operands of the last.

    Args:
        file: The file.
        formula: The formula.
        values: The tensors of its values.
        shape: The shape of all that it makes.
        name: The name of its result, with which the names of all tensors begin.
    """
    numbers = count()

    def apply(operator: str, operands: list[int]) -> int:
        made = file.add_tensor(f"{name}/{operator.lower()}.{next(numbers)}", np.float32, shape)
        native = OPERATORS[operator]
        file.add_operator(native.operator, operands, [made], native.options(), integer=False)
        return made

    def number(value: float) -> int:
        return file.add_constant(f"{name}/number.{next(numbers)}", np.array(value, np.float32))

    return formula.operands(values, apply, number)


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
