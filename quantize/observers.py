"""Observing activations, and choosing the range that 8 bits should span.

An activation is summarized as it streams by, crop after crop: its extremes and a histogram whose
bins double in width when a value lands outside, so that memory is bounded and nothing is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.execution import Interpreter
from export.graph import Graph
from export.scales import Quantization
from runtime.errors import UserError

BINS = 8192
"""Bins on each side of zero. At least half of them lie within the larger extreme, so that a quantum
has 16 bins or more."""

Range = tuple[float, float]
"""The lowest and the highest real value that 8 bits should express."""


@dataclass(frozen=True)
class Summary:
    """The extremes and the histogram of the values of one activation.

    Attributes:
        low: The least value.
        high: The greatest value.
        reach: A power of two above both magnitudes; the histogram spans [−reach, reach].
        counts: How many values lie in each of the 2 · ``BINS`` equal bins.
    """

    low: float
    high: float
    reach: float
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: Tensor) -> Summary:
        """Summarize a tensor of any shape.

        Raises:
            UserError: If a value is not finite.
        """
        low, high = (float(bound) for bound in torch.aminmax(values))
        largest = max(-low, high)
        if not math.isfinite(largest):
            raise UserError(
                "the network's activations are not finite; its weights are damaged, train it again"
            )
        # An all-zero tensor gets the narrowest bins, for it must not widen those of later tensors.
        reach = 2.0 ** math.frexp(max(largest, 1e-30))[1]
        counts = torch.histc(values.float(), 2 * BINS, -reach, reach)
        return cls(low, high, reach, counts.to(torch.int64).numpy())

    def merged(self, other: Summary) -> Summary:
        """Return the summary of the values of both summaries."""
        reach = max(self.reach, other.reach)
        counts = self._counts_within(reach) + other._counts_within(reach)
        return Summary(min(self.low, other.low), max(self.high, other.high), reach, counts)

    def percentile(self, percent: float) -> float:
        """Return the value that ``percent`` % of all values do not exceed, to within one bin."""
        cumulative = np.cumsum(self.counts)
        target = percent / 100 * cumulative[-1]
        index = int(np.searchsorted(cumulative, target))
        inside = 1 - (cumulative[index] - target) / max(self.counts[index], 1)
        value = ((index + inside) / BINS - 1) * self.reach
        return float(np.clip(value, self.low, self.high))

    def squared_error(self, quantization: Quantization, clipping: float = 1.0) -> float:
        """Return the mean squared difference between the values and their 8-bit forms.

        Args:
            quantization: The 8-bit form.
            clipping: Weight of the squared error of values out of range.
        """
        (filled,) = np.nonzero(self.counts)
        values = np.clip(((filled + 0.5) / BINS - 1) * self.reach, self.low, self.high)
        scale, zero_point = quantization.scale, quantization.zero_point
        nearest = np.rint(values / scale)
        integers = np.clip(nearest, -128 - zero_point, 127 - zero_point)
        errors = (integers * scale - values) ** 2 * np.where(integers == nearest, 1.0, clipping)
        return float(np.average(errors, weights=self.counts[filled]))

    def _counts_within(self, reach: float) -> NDArray[np.int64]:
        """Return the counts in bins that span [−reach, reach]; ``reach`` is not below its own."""
        narrower = int(min(reach / self.reach, 2 * BINS))
        bins = BINS + (np.arange(2 * BINS) - BINS) // narrower
        return np.bincount(bins, self.counts, 2 * BINS).astype(np.int64)


Observer = Callable[[Summary], Range]
"""Chooses the range of an activation from its summary."""


def min_max_range(summary: Summary) -> Range:
    """Return the range that clips nothing."""
    return summary.low, summary.high


def percentile_range(summary: Summary, percent: float = 99.99) -> Range:
    """Return the range that clips 100 − ``percent`` % of the values at either end."""
    return summary.percentile(100 - percent), summary.percentile(percent)


def least_squares_range(summary: Summary, clipping: float = 1.0) -> Range:
    """Return the range, at most the full one, with the least mean squared quantization error.

    The two ends are shrunk in turn, each to the best of forty fractions of its extreme. Squared
    errors of values out of range are multiplied by ``clipping``.
    """
    low, high = summary.low, summary.high
    fractions = np.linspace(1, 0.025, 40)

    def error(candidate: Range) -> float:
        return summary.squared_error(Quantization.of_range(*candidate), clipping)

    for _ in range(2):
        high = min((summary.high * float(f) for f in fractions), key=lambda end: error((low, end)))
        low = min((summary.low * float(f) for f in fractions), key=lambda end: error((end, high)))
    return low, high


OBSERVERS: Mapping[str, Observer] = {
    "min-max": min_max_range,
    "percentile": percentile_range,
    "mse": least_squares_range,
    "cautious": partial(least_squares_range, clipping=8.0),
}


def observe(graph: Graph, crops: Iterable[Tensor]) -> dict[str, Summary]:
    """Run a float graph on pictures and summarize its activations.

    Args:
        graph: Lowered for int8.
        crops: Pictures, N × 3 × H × W in [0, 1], one after the other.

    Returns:
        A summary of each activation that an int8 file holds, by its name in the captured graph.

    Raises:
        UserError: If an activation is not finite.
    """
    observed = _Observed(graph)
    with torch.inference_mode():
        for crop in crops:
            observed(crop)
    return observed.summaries


class _Observed(Interpreter):
    """Summarizes the activations of all runs, by their names in the captured graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.summaries: dict[str, Summary] = {}
        self._names = graph.names

    def activation(self, name: str, value: Tensor) -> Tensor:
        captured = self.graph.origin(name)
        # An added activation is observed only if the captured one that it stands for is gone.
        if name == captured or captured not in self._names:
            summary, known = Summary.of(value), self.summaries.get(captured)
            self.summaries[captured] = summary if known is None else known.merged(summary)
        return value
