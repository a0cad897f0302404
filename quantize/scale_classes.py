"""Which activations share one scale.

Operators that only move 8-bit values (DepthToSpace, Split, Concat) cannot change a scale, so that
their inputs and outputs share one. In a concatenation this costs accuracy: inputs differ in range,
and an input of small range that other nodes read too is coarser there than it need be. A
``Requantize`` before the concatenation unties it. A PRelu whose slopes are at most one is the
larger of two values, and copies one of them. The picture and the restored picture always have the
scale of pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from export.graph import Graph, Node
from export.integers import is_maximum
from export.operators import Trait, operators_with
from export.rewrites.gain_groups import connected

Concatenations = Literal["tied", "requantized"]

_MOVING = operators_with(Trait.MOVES)


@dataclass(frozen=True)
class ScaleClasses:
    """How the activations of a graph share their scales, by the names of the captured graph.

    Attributes:
        classes: The activations that a file holds, except ``pixels``, in groups that share a scale
            and in the order of execution.
        pixels: The activations with the scale of pixels.
        requantized: Inputs of concatenations that change their scale, as in ``ScaleTable``.
    """

    classes: tuple[tuple[str, ...], ...]
    pixels: tuple[str, ...]
    requantized: tuple[tuple[str, str], ...]


def scale_classes(graph: Graph, concatenations: Concatenations) -> ScaleClasses:
    """Decide which activations of a graph share one scale.

    Args:
        graph: Lowered for int8.
        concatenations: ``tied``: all inputs and the output of a concatenation share one scale.
            ``requantized``: an input that is also read outside the concatenations of its cascade
            keeps a scale of its own; other inputs are tied, because requantizing would only round
            them twice. With either choice pixels are requantized where they meet features.
    """
    values = list(dict.fromkeys(map(graph.origin, held_values(graph))))
    # Concatenations can be requantized and are decided one by one.
    movers = [node for node in graph.nodes if node.op in _MOVING - {"Concat"}]
    moves = [tie for node in movers for tie in _ties(graph, node)]
    moves += [*rectified(graph).items(), *_bent(graph)]
    pixels = _pixels(graph, connected(values, moves))
    cascades = _cascades(graph, pixels)
    untied = set(_requantized(graph, cascades, pixels, concatenations))
    joins = [tie for group in cascades for node in group for tie in _ties(graph, node)]
    ties = [*moves, *(tie for tie in joins if tie not in untied)]
    for group in cascades:
        first, *others = (graph.origin(node.output) for node in group)
        ties += [(first, other) for other in others]
    together = connected(values, ties)
    pixels = _pixels(graph, together)
    return ScaleClasses(
        classes=tuple(members for members in together if members[0] not in pixels),
        pixels=pixels,
        requantized=tuple(tie for tie in dict.fromkeys(joins) if tie in untied),
    )


def held_values(graph: Graph) -> list[str]:
    """Return the activations that an int8 file of ``graph`` holds, in the order of execution."""
    made = (node.outputs for node in graph.nodes if graph.fused_relu(node) is None)
    return [graph.input, *(value for outputs in made for value in outputs)]


def moved(graph: Graph) -> set[str]:
    """Return the activations that are copies of others, by their names in the captured graph.

    A copy that a rewrite made, as with edges around it, has the name of what it is a copy of.
    """
    ties = (tie for node in graph.nodes if node.op in _MOVING for tie in _ties(graph, node))
    return {output for value, output in ties if output != value}


def rectified(graph: Graph) -> dict[str, str]:
    """Map each activation that a file holds and only a Relu reads to the output of the Relu.

    Both names are those of the captured graph. The two activations share the scale of the output,
    because negative values of the input may be clipped.
    """
    held = set(held_values(graph))
    return {
        graph.origin(node.inputs[0]): graph.origin(node.output)
        for node in graph.nodes
        if node.op == "Relu" and node.inputs[0] in held and graph.sole_consumer(node.inputs[0])
    }


def _bent(graph: Graph) -> Iterator[tuple[str, str]]:
    """Return the inputs and outputs of what files compute as the larger of two values."""
    for node in graph.nodes:
        if node.op == "PRelu" and is_maximum(graph.constants[node.inputs[1]]):
            yield from _ties(graph, dataclasses.replace(node, inputs=node.operands))


def _ties(graph: Graph, node: Node) -> Iterator[tuple[str, str]]:
    for value in node.inputs:
        for output in node.outputs:
            yield graph.origin(value), graph.origin(output)


def _pixels(graph: Graph, classes: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    ends = {graph.input, graph.output}
    return tuple(value for members in classes if ends & set(members) for value in members)


def _cascades(graph: Graph, pixels: Sequence[str]) -> list[list[Node]]:
    """Return the Concat nodes in groups; a node of a group reads all that the node before reads."""
    groups: list[list[Node]] = []
    for node in graph.nodes:
        if node.op != "Concat":
            continue
        for group in groups:
            shared = group[-1].inputs
            ends = [graph.origin(one.output) in pixels for one in (node, group[-1])]
            if node.inputs[: len(shared)] == shared and ends[0] == ends[1]:
                group.append(node)
                break
        else:
            groups.append([node])
    return groups


def _requantized(
    graph: Graph,
    cascades: Iterable[list[Node]],
    pixels: Sequence[str],
    concatenations: Concatenations,
) -> Iterator[tuple[str, str]]:
    for group in cascades:
        for value, concat in ((value, node) for node in group for value in node.inputs):
            tie = graph.origin(value), graph.origin(concat.output)
            from_pixels, to_pixels = (one in pixels for one in tie)
            readers = graph.consumers(value)
            shared = value == graph.output or any(reader not in group for reader in readers)
            if from_pixels or to_pixels:
                wanted = from_pixels != to_pixels and (shared or from_pixels)
            else:
                wanted = shared and concatenations == "requantized"
            if wanted:
                yield tie
