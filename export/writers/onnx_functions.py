"""Functions in ONNX files: ONNX's own operators, and the operators of formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.formulas import Formula
from export.writers.normalizations import MEANS, shape_of

Shape = tuple[int | str, ...]
"""Extents, with names for those that are free."""

Tensor = tuple[str, Shape]
"""A tensor's name, and its shape."""


@dataclass(frozen=True)
class Native:
    """An ONNX operator.

    Attributes:
        operator: Its name.
        attributes: Its attributes.
    """

    operator: str
    attributes: Mapping[str, float] = field(default_factory=dict)


NATIVE: Mapping[str, Native] = {
    "Mish": Native("Mish"),
    "HardSwish": Native("HardSwish"),
    "HardSigmoid": Native("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "Softplus": Native("Softplus"),
    "Tanh": Native("Tanh"),
    "Sqrt": Native("Sqrt"),
    "Exp": Native("Exp"),
    "Abs": Native("Abs"),
}
"""By the names of ``export.formulas.FORMULAS``."""


def formula_operands(
    formula: Formula,
    values: Mapping[str, Tensor],
    name: str,
    dtype: np.dtype[Any],
    add: Callable[..., None],
    constant: Callable[[str, NDArray[Any]], str],
) -> list[str]:
    """Add all of a formula but its last operator; return the operands of the last.

    Args:
        formula: The formula.
        values: Its values.
        name: The name of its result, with which the names of all tensors begin.
        dtype: The type of all tensors.
        add: Adds an operator: its name, its operands, its results with their shapes, their type.
        constant: Stores a constant and returns its name.
    """
    numbers = count()

    def apply(op: str, operands: list[Tensor]) -> Tensor:
        made, shape = f"{name}/{op.lower()}.{next(numbers)}", shape_of(op, operands)
        tensors = [tensor for tensor, _ in operands]
        if op in MEANS:
            axes = constant(f"{made}.axes", np.array(MEANS[op]))
            add("ReduceMean", [*tensors, axes], {made: shape}, dtype)
        else:
            add("Conv" if op == "Mix" else op, tensors, {made: shape}, dtype)
        return made, shape

    def number(value: float) -> Tensor:
        return constant(f"{name}/number.{next(numbers)}", np.array(value, dtype)), ()

    return [tensor for tensor, _ in formula.operands(values, apply, number)]
