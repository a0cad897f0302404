"""ONNX's own operators for functions of one activation; other functions have formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
