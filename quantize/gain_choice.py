"""Gains: powers of two that give activations which share a scale similar magnitudes.

A cascade concatenates its input with the outputs of all its stages, and they share the scale of the
output with the largest magnitude. The input has a smaller magnitude, and every stage reads it, so
that rounding it coarsely costs most. Outputs multiplied to the input's magnitude share its finer
scale, and the multiplication is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from export.graph import Graph
from export.rewrites.gain_groups import gain_groups
from quantize.observers import Range
from quantize.scale_classes import moved, rectified

_MOST = 8
"""The largest exponent."""


def choose_gains(
    graph: Graph,
    classes: Sequence[Sequence[str]],
    ranges: Mapping[str, Range],
    effect: Mapping[str, float],
) -> dict[str, float]:
    """Return the factors of activations, by their names in the captured graph; 1 is left out.

    Args:
        graph: Lowered for int8.
        classes: Groups of activations that share a scale, by their names in the captured graph.
        ranges: The range that 8 bits should span, of each activation.
        effect: How much white noise of variance 1 changes the output, of each activation.
    """
    groups = gain_groups(graph)
    leaders = {graph.origin(value): members[0] for members in groups for value in members}
    # What moves has no values of its own; an activation that only a Relu reads may be clipped.
    made = moved(graph) | rectified(graph).keys()
    decided = {graph.input: 1.0}
    for members in classes:
        parts: dict[str, _Part] = {}
        for value in members:
            if value not in made:
                seen = _Part(*ranges[value], effect.get(value, 0.0))
                leader = leaders[value]
                parts[leader] = seen.beside(parts[leader]) if leader in parts else seen
        # The first group, which most layers read, keeps its factor unless another is decided.
        if parts and not decided.keys() & parts.keys():
            decided[next(iter(parts))] = 1.0
        decided |= _least_noise(parts, decided)
    return {
        graph.origin(value): factor
        for members in groups
        for value in members
        if (factor := decided.get(members[0], 1.0)) != 1
    }


@dataclass(frozen=True)
class _Part:
    """The activations of a class that have one factor.

    Attributes:
        low: The least value.
        high: The greatest value.
        effect: How much white noise of variance 1 changes the output.
    """

    low: float
    high: float
    effect: float

    def beside(self, other: _Part) -> _Part:
        low, high = min(self.low, other.low), max(self.high, other.high)
        return _Part(low, high, self.effect + other.effect)

    def times(self, factor: float) -> _Part:
        return _Part(self.low * factor, self.high * factor, self.effect / factor**2)

    @property
    def reach(self) -> float:
        return max(-self.low, self.high)


def _least_noise(parts: Mapping[str, _Part], decided: Mapping[str, float]) -> dict[str, float]:
    """Choose the factors of the parts of a class with which rounding makes the least noise.

    All parts are brought below a common reach, in eighths of an octave from that of the decided
    ones to twice as far.
    """
    fixed = {name: decided[name] for name in parts if name in decided}
    farthest = max((fixed[name] * parts[name].reach for name in fixed), default=0.0)

    def below(reach: float) -> dict[str, float]:
        free = {name: one for name, one in parts.items() if name not in fixed and one.reach > 0}
        return fixed | {name: _power_below(reach / one.reach) for name, one in free.items()}

    def noise(factors: Mapping[str, float]) -> float:
        scaled = [part.times(factors.get(name, 1.0)) for name, part in parts.items()]
        together = reduce(_Part.beside, scaled)
        return together.effect * (together.high - together.low) ** 2

    if farthest == 0:
        return fixed
    return min((below(farthest * 2.0 ** (eighth / 8)) for eighth in range(9)), key=noise)


def _power_below(ratio: float) -> float:
    return float(2.0 ** max(-_MOST, min(_MOST, math.floor(math.log2(ratio)))))
