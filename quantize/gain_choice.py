"""Gains: powers of two that give activations which share a scale similar magnitudes.

A cascade concatenates its input with the outputs of all its stages, and they share the scale of the
output with the largest magnitude. The input has a smaller magnitude, and every stage reads it, so
that rounding it coarsely costs most. Outputs multiplied to the input's magnitude share its finer
scale, and the multiplication is exact.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from export.graph import Graph, Node
from export.operators import Trait, operators_with
from quantize.observers import Observer, Summary
from quantize.scale_classes import connected, rectified

_HOMOGENEOUS = operators_with(Trait.HOMOGENEOUS)
"""Operators whose results are multiplied by the factor that multiplies their operands."""
_MOST = 8
"""The largest exponent."""


def choose_gains(
    graph: Graph,
    classes: Sequence[Sequence[str]],
    summaries: Mapping[str, Summary],
    observer: Observer,
) -> dict[str, float]:
    """Return the factors of activations, by their names in the captured graph; 1 is left out.

    Args:
        graph: Lowered for int8.
        classes: Groups of activations that share a scale, by their names in the captured graph.
        summaries: As ``quantize.observers.observe`` returns them.
        observer: Chooses the range of an activation.
    """
    groups = gain_groups(graph)
    leaders = {graph.origin(value): members[0] for members in groups for value in members}
    # A concatenation has no values of its own; an activation that only a Relu reads may be clipped.
    joined = {graph.origin(node.output) for node in graph.nodes if node.op == "Concat"}
    made = joined | rectified(graph).keys()
    factors = {graph.input: 1.0}
    for members in classes:
        parts: dict[str, list[Summary]] = defaultdict(list)
        for value in members:
            if value not in made:
                parts[leaders[value]].append(summaries[value])
        reaches = {
            leader: factors.get(leader, 1.0)
            * max(map(abs, observer(reduce(Summary.merged, found))))
            for leader, found in parts.items()
        }
        # All are matched to a group whose factor is already decided, or else to the first group,
        # which most layers read.
        decided = [reach for leader, reach in reaches.items() if leader in factors]
        measure = next(iter(decided or reaches.values()), 0.0)
        for leader, reach in reaches.items():
            if reach > 0 and measure > 0:
                exponent = round(math.log2(measure / reach))
                factors.setdefault(leader, 2.0 ** max(-_MOST, min(_MOST, exponent)))
    return {
        graph.origin(value): factor
        for members in groups
        for value in members
        if (factor := factors.get(members[0], 1.0)) != 1
    }


def scaled_summaries(
    graph: Graph, summaries: Mapping[str, Summary], gains: Mapping[str, float]
) -> dict[str, Summary]:
    """Return the summaries that the activations of ``graph`` have after multiplication by gains."""
    scaled = {name: one.scaled(gains.get(name, 1.0)) for name, one in summaries.items()}
    for node in graph.nodes:
        if node.op == "Concat":
            inputs = [scaled[graph.origin(value)] for value in node.inputs]
            scaled[graph.origin(node.output)] = reduce(Summary.merged, inputs)
    return scaled


def gain_groups(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the activations of a graph in groups that must have equal factors.

    The first group begins with the picture; its factor is 1.
    """
    values = [graph.input, *(value for node in graph.activations() for value in node.outputs)]
    return connected(values, _ties(graph))


def _ties(graph: Graph) -> Iterator[tuple[str, str]]:
    yield graph.input, graph.output
    first_reader: dict[str, Node] = {}
    for node in graph.activations():
        values = [name for name in node.inputs if not graph.is_constant(name)]
        if node.op == "Conv":
            # A kernel that a rewrite made up copies the picture, whose factor is 1.
            if not graph.is_captured(graph.origin(node.inputs[1])):
                yield graph.input, node.output
            for constant in node.inputs[1:]:
                other = first_reader.setdefault(constant, node)
                if other is not node:
                    yield from _same_convolution(graph, other, node)
        elif node.op == "Concat":
            if node.output in graph.outputs or any(
                reader.op != "Conv" for reader in graph.consumers(node.output)
            ):
                yield from ((graph.input, value) for value in (*values, node.output))
        elif node.op in _HOMOGENEOUS:
            yield from ((values[0], value) for value in (*values[1:], *node.outputs))
        else:
            yield from ((graph.input, value) for value in (*values, *node.outputs))


def _same_convolution(graph: Graph, one: Node, other: Node) -> Iterator[tuple[str, str]]:
    """Tie the inputs of two convolutions with the same constants, and tie their outputs."""
    yield one.output, other.output
    for node in (one, other):
        producer = graph.producer(node.inputs[0])
        if producer is not None and producer.op == "Concat":
            yield from ((graph.input, value) for value in producer.inputs)
    yield one.inputs[0], other.inputs[0]
