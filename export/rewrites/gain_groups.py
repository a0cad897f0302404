"""Which activations must be multiplied by the same factor (``export.rewrites.gains``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from export.graph import Graph
from export.operators import Trait, operators_with

_HOMOGENEOUS = operators_with(Trait.HOMOGENEOUS)
"""Operators whose results are multiplied by the factor that multiplies their operands."""


def gain_groups(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the activations of a graph in groups that must have equal factors.

    The first group begins with the picture; its factor is 1.
    """
    values = [graph.input, *(value for node in graph.activations() for value in node.outputs)]
    return connected(values, _ties(graph))


def connected(
    values: Iterable[str], ties: Iterable[tuple[str, str]]
) -> tuple[tuple[str, ...], ...]:
    """Return ``values`` in classes: the connected components of ``ties``.

    Classes are in the order of their first values, and values keep their order within a class.
    """
    leader = {value: value for value in values}
    for one, other in ties:
        new, old = leader[one], leader[other]
        leader = {value: new if led == old else led for value, led in leader.items()}
    classes: dict[str, list[str]] = {}
    for value, led in leader.items():
        classes.setdefault(led, []).append(value)
    return tuple(tuple(members) for members in classes.values())


def _ties(graph: Graph) -> Iterator[tuple[str, str]]:
    yield graph.input, graph.output
    for node in graph.activations():
        values = [name for name in node.inputs if not graph.is_constant(name)]
        if node.op == "Conv":
            # A kernel that a rewrite made up copies the picture, whose factor is 1.
            if not graph.is_captured(graph.origin(node.inputs[1])):
                yield graph.input, node.output
        elif node.op == "Concat":
            if node.output in graph.outputs or any(
                reader.op != "Conv" for reader in graph.consumers(node.output)
            ):
                yield from ((graph.input, value) for value in (*values, node.output))
        elif node.op in _HOMOGENEOUS and not any(map(graph.is_constant, node.operands)):
            yield from ((values[0], value) for value in (*values[1:], *node.outputs))
        else:
            yield from ((graph.input, value) for value in (*values, *node.outputs))
