"""Functions of one activation in Core ML programs: its own operations, or formulas of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from export.formulas import FORMULAS
from export.writers.coreml_program import Builder


def function(op: str, x: Any, name: str, dtype: np.dtype[Any]) -> Any:
    """Build a function of one activation; return its variable.

    Args:
        op: The function's name in ``export.formulas.FORMULAS``.
        x: The activation.
        name: The name of the result.
        dtype: The type of numbers.
    """
    if op in _NATIVE:
        return _NATIVE[op](x, name, dtype)
    formula = FORMULAS[op]

    def apply(operator: str, operands: list[Any]) -> Any:
        return _OPERATORS[operator](*operands)

    last = formula.operands({"x": x}, apply, dtype.type)
    return _OPERATORS[formula.operator](*last, name=name)


def _binary(build: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y, **named: build(x=x, y=y, **named)


def _unary(build: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, **named: build(x=x, **named)


def _plain(build: Callable[..., Any]) -> Callable[[Any, str, np.dtype[Any]], Any]:
    return lambda x, name, dtype: build(x=x, name=name)


def _mish(x: Any, name: str, dtype: np.dtype[Any]) -> Any:
    return Builder.mul(x=x, y=Builder.tanh(x=Builder.softplus(x=x)), name=name)


def _hard_sigmoid(x: Any, name: str, dtype: np.dtype[Any]) -> Any:
    slope, middle = dtype.type(1 / 6), dtype.type(0.5)
    return Builder.sigmoid_hard(x=x, alpha=slope, beta=middle, name=name)


_NATIVE: Mapping[str, Callable[[Any, str, np.dtype[Any]], Any]] = {
    "Silu": _plain(Builder.silu),
    "Gelu": lambda x, name, dtype: Builder.gelu(x=x, mode="EXACT", name=name),
    "GeluTanh": lambda x, name, dtype: Builder.gelu(x=x, mode="TANH_APPROXIMATION", name=name),
    "Mish": _mish,
    "HardSigmoid": _hard_sigmoid,
    "Softplus": _plain(Builder.softplus),
    "Tanh": _plain(Builder.tanh),
    "Sqrt": _plain(Builder.sqrt),
    "Exp": _plain(Builder.exp),
    "Abs": _plain(Builder.abs),
}

_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Add": _binary(Builder.add),
    "Sub": _binary(Builder.sub),
    "Mul": _binary(Builder.mul),
    "Div": _binary(Builder.real_div),
    "Max": _binary(Builder.maximum),
    "Min": _binary(Builder.minimum),
    "Abs": _unary(Builder.abs),
    "Exp": _unary(Builder.exp),
    "Log": _unary(Builder.log),
    "Sqrt": _unary(Builder.sqrt),
    "Tanh": _unary(Builder.tanh),
    "Sigmoid": _unary(Builder.sigmoid),
}
