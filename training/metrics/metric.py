"""The contract of metrics: what restored pictures are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Compared:
    """A restored picture and its original, as a protocol compares them: without a border.

    Attributes:
        restored: H × W × 3 RGB, uint8.
        original: H × W × 3 RGB, uint8.
        planes: Turns either into the planes that fidelity is measured on, H × W × C.
    """

    restored: NDArray[np.uint8]
    original: NDArray[np.uint8]
    planes: Callable[[NDArray[np.uint8]], NDArray[Any]]


Measure: TypeAlias = Callable[[Compared], float | None]
"""Returns the score of a picture; None if the picture is too small for one."""


@dataclass(frozen=True)
class Metric:
    """A metric, listed in ``training.metrics.kinds``.

    Attributes:
        name: Name on the command line and in recipes.
        title: Name in tables; the protocol may add to it.
        of_planes: It measures the planes of the protocol (Y or RGB), and its title says which.
        lower_is_better: Less is better, as of distances.
        decimals: Digits behind the point in tables.
        unit: Unit in tables.
        build: Returns the measure, with what it needs read from disk.

            Raises UserError if something that it needs, such as a file of weights, is missing.
    """

    name: str
    title: str
    of_planes: bool
    lower_is_better: bool
    decimals: int
    build: Callable[[], Measure]
    unit: str = ""

    def text(self, value: float | None) -> str:
        """Return a score as tables show it."""
        if value is None:
            return "-"
        if np.isinf(value):
            return "equal"
        return f"{value:.{self.decimals}f}{self.unit and ' ' + self.unit}"


def check_shapes(restored: NDArray[np.generic], reference: NDArray[np.generic]) -> None:
    """Check that two arrays can be compared.

    Raises:
        ValueError: If their shapes differ.
    """
    if restored.shape != reference.shape:
        raise ValueError(
            f"pictures of different sizes cannot be compared: {restored.shape} restored, "
            f"{reference.shape} reference"
        )
