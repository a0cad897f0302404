"""Ranges of what only functions read that flatten out, as sigmoids do, and SiLU below zero.

Such a function makes nearly the same of −10 and of −1000. Values that far away would take the 8
bits from those of which it makes something else.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from export.execution import HANDLERS
from export.formulas import FORMULAS
from export.graph import Graph, Node
from quantize.observers import Range

_SHARE = 0.25
"""Of a step of the result in 8 bits: what clipping its operand may change."""
_STEPS = 4096
_FUNCTIONS = FORMULAS.keys() | {"Sigmoid"}


def unsaturated(
    graph: Graph, ranges: Mapping[str, Range], results: Mapping[str, Range]
) -> dict[str, Range]:
    """Narrow ranges to where the functions that read them change.

    Args:
        graph: Lowered for int8.
        ranges: The range of each activation, by its name in the captured graph.
        results: The finest ranges that the results of the functions may get, alike.

    Returns:
        All ranges, narrower where functions of one activation are all that reads it.
    """
    narrowed = dict(ranges)
    for name in ranges:
        readers = graph.consumers(name)
        if readers and name not in graph.outputs and all(one.op in _FUNCTIONS for one in readers):
            found = [
                _changing(one, ranges[name], results[graph.origin(one.output)]) for one in readers
            ]
            narrowed[name] = min(low for low, _ in found), max(high for _, high in found)
    return narrowed


def _changing(node: Node, source: Range, target: Range) -> Range:
    """Return the part of a range outside of which clipping changes the results too little."""
    values = torch.linspace(*source, _STEPS, dtype=torch.float64)
    (results,) = HANDLERS[node.op](node, [values])
    allowed = _SHARE * (target[1] - target[0]) / 255
    # From each value on to either end of the range: the least and the largest result.
    spans = [
        one.cummax(0).values - one.neg().cummax(0).values.neg()
        for one in (results, results.flip(0))
    ]
    skipped = [int((span <= allowed).sum()) for span in spans]
    low, high = max(skipped[0] - 1, 0), _STEPS - max(skipped[1], 1)
    return (float(values[low]), float(values[high])) if low < high else source
