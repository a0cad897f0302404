"""Functions and normalizations in Core ML programs: its own operations, or formulas of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from export.formulas import FORMULAS
from export.graph import Graph, Node
from export.writers.coreml_program import Builder
from export.writers.normalizations import MEANS, normalization


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


def normalized(graph: Graph, node: Node, x: Any, name: str, dtype: np.dtype[Any]) -> Any:
    """Build a normalization, which is computed in float32; return its variable.

    Args:
        graph: The graph, which holds the constants.
        node: The normalization.
        x: The activation.
        name: The name of the result.
        dtype: The type of ``x`` and of the result.
    """
    halves = dtype == np.float16
    formula, constants = normalization(graph, node)
    values = {"x": Builder.cast(x=x, dtype="fp32") if halves else x}
    values |= {one: Builder.const(val=array) for one, array in constants.items()}

    def apply(operator: str, operands: list[Any]) -> Any:
        return _OPERATORS[operator](*operands)

    last = formula.operands(values, apply, np.float32)
    if not halves:
        return _OPERATORS[formula.operator](*last, name=name)
    return Builder.cast(x=apply(formula.operator, last), dtype="fp16", name=name)


def _mean(axes: tuple[int, ...]) -> Callable[..., Any]:
    return lambda x: Builder.reduce_mean(x=x, axes=list(axes), keep_dims=True)


def _mixed(x: Any, kernel: Any) -> Any:
    shifts = np.zeros(len(kernel.val), np.float32)
    return Builder.conv(x=x, weight=kernel, bias=shifts, pad_type="custom", pad=[0] * 4)


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
    **{name: _mean(axes) for name, axes in MEANS.items()},
    "Mix": _mixed,
}
