"""Positive and negative features apart, so that 8 bits span half as much.

A first convolution without a ReLU makes features of both signs. Where a cascade concatenates them
with later features, which a ReLU made, all share one scale that spans both signs, and rounding the
first features, which every stage reads, makes most of all noise. Their positive and their negative
part are as wide as one sign alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator

import numpy as np

from export.graph import Array, Graph, Node
from export.rewrites.additions import Additions

_MOST_CHANNELS = 8
"""Of the picture and the ones that carry its mean, twice; what reads more would cost too much."""


def split_signs(graph: Graph) -> Graph:
    """Concatenate the positive and the negative part of a picture's first features.

    v = relu(v) − relu(−v): the kernels that read the concatenation get the channels of v twice, the
    second time negated. It is done where a convolution of the picture has no ReLU and
    ungrouped convolutions alone read the concatenation.
    """
    split = {node.output for node in graph.nodes if _can_be_split(graph, node)}
    if not split:
        return graph
    added = Additions(graph)
    joins = {
        node.output: node for node in graph.nodes if node.op == "Concat" and split & {*node.inputs}
    }

    def rewritten() -> Iterator[Node]:
        halves: dict[str, tuple[str, ...]] = {}
        for node in graph.nodes:
            if node.outputs[0] in split:
                made = [_half(graph, added, node, sign) for sign in (1, -1)]
                halves[node.output] = tuple(relu.output for _, relu in made)
                if any(reader.op != "Concat" for reader in graph.consumers(node.output)):
                    yield node
                yield from (one for pair in made for one in pair)
            elif node.outputs[0] in joins:
                parts = (part for value in node.inputs for part in halves.get(value, (value,)))
                wider = (added.replacement(node.output),)
                yield dataclasses.replace(node, inputs=tuple(parts), outputs=wider)
            elif (join := joins.get(node.inputs[0])) is not None:
                value, weight, bias = node.inputs
                twice = _with_negated(graph, graph.constants[weight], join, split)
                name = added.constant(f"{weight}/signs", twice, weight)
                yield dataclasses.replace(node, inputs=(value, name, bias))
            else:
                yield node

    return added.graph(rewritten())


def _half(graph: Graph, added: Additions, node: Node, sign: int) -> tuple[Node, Node]:
    """Return the convolution of a sign, and the Relu that makes it the part of this sign."""
    label = "positive" if sign > 0 else "negative"
    value, weight, bias = node.inputs
    raw, part = (
        added.activation(name, name)
        for name in (f"{node.output}/{label}/raw", f"{node.output}/{label}")
    )
    operands = (
        value,
        added.constant(f"{weight}/{label}", sign * graph.constants[weight], weight),
        added.constant(f"{bias}/{label}", sign * graph.constants[bias], bias),
    )
    conv = dataclasses.replace(node, inputs=operands, outputs=(raw,))
    return conv, Node("Relu", node.name, (raw,), (part,))


def _can_be_split(graph: Graph, node: Node) -> bool:
    if node.op != "Conv" or graph.fused_relu(node) is not None or node.output in graph.outputs:
        return False
    joins = [reader for reader in graph.consumers(node.output) if reader.op == "Concat"]
    readers = [reader for join in joins for reader in graph.consumers(join.output)]
    return (
        bool(joins)
        and graph.origin(node.inputs[0]) == graph.input
        and graph.is_captured(graph.origin(node.inputs[1]))
        and graph.constants[node.inputs[1]].shape[1] <= _MOST_CHANNELS
        and all(join.output not in graph.outputs for join in joins)
        and all(one.op == "Conv" and one.integer("groups") == 1 for one in readers)
    )


def _with_negated(graph: Graph, kernel: Array, joined: Node, split: Container[str]) -> Array:
    """Return the kernel that reads a concatenation, with the inputs of split values twice."""
    channels, first = graph.channels(), 0
    blocks: list[Array] = []
    for value in joined.inputs:
        block = kernel[:, first : first + channels[value]]
        blocks += [block, -block] if value in split else [block]
        first += channels[value]
    return np.concatenate(blocks, axis=1)
