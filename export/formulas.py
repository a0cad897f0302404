"""Functions and normalizations, written in the operators that every file format has.

A writer uses its format's own operator for a function where there is one, and this spelling where
there is none. ``export.execution`` computes the functions themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Formula:
    """An operator applied to terms.

    Attributes:
        operator: Add, Sub, Mul, Div, Max, Min, Abs, Exp, Log, Sqrt, Erf, Tanh or Sigmoid, as ONNX
            defines them; MeanOfChannels or MeanOfPixels, which keep their axes as one; Mix, a 1×1
            convolution of a value and a kernel.
        terms: What it is applied to: formulas, numbers, and values by their names.
    """

    operator: str
    terms: tuple[Formula | float | str, ...]

    def operands(
        self,
        values: Mapping[str, Value],
        apply: Callable[[str, list[Value]], Value],
        number: Callable[[float], Value],
    ) -> list[Value]:
        """Return the operands of the last operator, after all other operators were applied.

        Args:
            values: The named values.
            apply: Applies an operator; called once for equal formulas.
            number: Returns a constant.
        """
        known: dict[Formula, Value] = {}

        def of(term: Formula | float | str) -> Value:
            if isinstance(term, str):
                return values[term]
            if not isinstance(term, Formula):
                return number(term)
            if term not in known:
                known[term] = apply(term.operator, [*map(of, term.terms)])
            return known[term]

        return [*map(of, self.terms)]


def _sum(*terms: Formula | float | str) -> Formula:
    return Formula("Add", terms)


def _product(*terms: Formula | float | str) -> Formula:
    return Formula("Mul", terms)


def _applied(operator: str, *terms: Formula | float | str) -> Formula:
    return Formula(operator, terms)


# Written so that nothing overflows in half precision for any finite x but where the result does.
_SIGMOID = _applied("Sigmoid", "x")
_SOFTPLUS = _sum(
    _applied("Max", "x", 0.0),
    _applied("Log", _sum(_applied("Exp", _product(_applied("Abs", "x"), -1.0)), 1.0)),
)
_HARD_SIGMOID = _applied("Min", _applied("Max", _sum(_product("x", 1 / 6), 0.5), 0.0), 1.0)
_ERF = _applied("Erf", _product("x", math.sqrt(1 / 2)))
_CUBIC = _product("x", _sum(_product(_product("x", "x"), 0.044715), 1.0))
_TANH_OF_CUBIC = _applied("Tanh", _product(_CUBIC, math.sqrt(2 / math.pi)))

FORMULAS: Mapping[str, Formula] = {
    "Silu": _product("x", _SIGMOID),
    "Gelu": _product(_product("x", 0.5), _sum(_ERF, 1.0)),
    # GELU's approximation by a hyperbolic tangent.
    "GeluTanh": _product(_product("x", 0.5), _sum(_TANH_OF_CUBIC, 1.0)),
    "Mish": _product("x", _applied("Tanh", _SOFTPLUS)),
    "HardSwish": _product("x", _HARD_SIGMOID),
    # min(max(x / 6 + 1/2, 0), 1), as torch defines it.
    "HardSigmoid": _HARD_SIGMOID,
    "Softplus": _SOFTPLUS,
    "Tanh": _applied("Tanh", "x"),
    "Sqrt": _applied("Sqrt", "x"),
    "Exp": _applied("Exp", "x"),
    "Abs": _applied("Abs", "x"),
}
"""The functions of the vocabulary, of the activation ``x``, by the names of their operators.

In int8 each is a table of 256 results (``export.tables``).
"""


def _normalized(mean: Callable[[Formula | str], Formula]) -> Formula:
    centred = _applied("Sub", "x", mean("x"))
    variance = mean(_product(centred, centred))
    normal = _applied("Div", centred, _applied("Sqrt", _sum(variance, "epsilon")))
    return _sum(_product(normal, "scale"), "bias")


def _mean_of_pixels(value: Formula | str) -> Formula:
    return _applied("MeanOfPixels", value)


NORMALIZATIONS: Mapping[str, Formula] = {
    # Of each pixel over its channels.
    "ChannelNorm": _normalized(lambda value: _applied("MeanOfChannels", value)),
    # Of each group of channels over the whole picture; ``averaging`` is the kernel that replaces
    # every channel by the mean of its group.
    "GroupNorm": _normalized(lambda value: _applied("Mix", _mean_of_pixels(value), "averaging")),
}
"""Normalizations of ``x`` to mean 0 and variance 1, then a factor and a shift per channel.

They are computed in float32 in files of every precision: squares overflow half precision from 256
on, and 8 bits cannot hold them.
"""

INSTANCE_NORM = _normalized(_mean_of_pixels)
"""A ``GroupNorm`` of as many groups as channels."""

QUOTIENT = _applied("Div", "x", "y")
"""A quotient of two activations, which int8 files compute in float32."""
