"""Functions and normalizations in Core AI programs: its own operations, or formulas of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from export.formulas import FORMULAS
from export.graph import Graph, Node
from export.writers.coreai_program import FLOAT32, ca, cast, signed, unsigned
from export.writers.normalizations import MEANS, normalization


def function(op: str, x: Any, dtype: np.dtype[Any]) -> Any:
    """Build a function of one activation; return its value.

    Args:
        op: The function's name in ``export.formulas.FORMULAS``.
        x: The activation.
        dtype: The type of numbers.
    """
    if op in _NATIVE:
        return _NATIVE[op](x)
    formula = FORMULAS[op]
    return _applied(formula.operator, formula.operands({"x": x}, _applied, dtype.type))


def normalized(
    graph: Graph,
    node: Node,
    x: Any,
    dtype: np.dtype[Any],
    constant: Callable[[str, Any], Any],
) -> Any:
    """Build a normalization, which is computed in float32; return its value.

    Args:
        graph: The graph, which holds the constants.
        node: The normalization.
        x: The activation.
        dtype: The type of ``x`` and of the result.
        constant: Stores a constant under a name and returns its value.
    """
    formula, constants = normalization(graph, node)
    values = {"x": cast(x, dtype, FLOAT32)}
    values |= {name: constant(f"{node.output}/{name}", one) for name, one in constants.items()}
    last = formula.operands(values, _applied, np.float32)
    return cast(_applied(formula.operator, last), FLOAT32, dtype)


def _applied(operator: str, operands: list[Any]) -> Any:
    return OPERATORS[operator](*operands)


def _mean(axes: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda x: ca.reduce_mean(x, signed(*axes))


def _mixed(x: Any, kernel: Any) -> Any:
    return ca.conv2d(x, kernel, unsigned(1, 1), unsigned(1, 1), np.uint32(1))


_NATIVE: Mapping[str, Callable[[Any], Any]] = {
    "Silu": ca.silu,
    "Gelu": ca.gelu,
    "GeluTanh": lambda x: ca.gelu(x, approximate="tanh"),
    "Tanh": ca.tanh,
    "Sqrt": ca.sqrt,
    "Exp": ca.exp,
    "Abs": ca.abs_,
}

OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Add": ca.broadcasting_add,
    "Sub": ca.broadcasting_sub,
    "Mul": ca.broadcasting_mul,
    "Div": ca.broadcasting_divide,
    "Max": ca.broadcasting_maximum,
    "Min": ca.broadcasting_minimum,
    "Abs": ca.abs_,
    "Exp": ca.exp,
    "Log": ca.log,
    "Sqrt": ca.sqrt,
    "Erf": ca.erf,
    "Tanh": ca.tanh,
    "Sigmoid": ca.sigmoid,
    **{name: _mean(axes) for name, axes in MEANS.items()},
    "Mix": _mixed,
}
"""Operations of the operators of formulas; those of two operands repeat one of fewer numbers."""
