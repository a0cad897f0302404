"""Positive and negative features apart, so that 8 bits span half as much.

A first convolution without a ReLU makes features of both signs. Where a cascade concatenates them
with later features, which a ReLU made, all share one scale that spans both signs, and rounding the
first features, which every stage reads, makes most of all noise. Their positive and their negative
part are as wide as one sign alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from export.graph import Array, Graph, Node
from export.rewrites.additions import Additions

_MOST_CHANNELS = 4
"""Of the picture, with the channel that carries its mean; what reads more would cost too much."""


def split_signs(graph: Graph) -> Graph:
    """Concatenate the positive and the negative part of a picture's first features.

    v = relu(v) − relu(−v): the kernels that read the concatenation get the channels of v twice, the
    second time negated. It is done where a convolution of the picture has no ReLU and
    ungrouped convolutions alone read the concatenation.
    """
    split = {node.output: node for node in graph.nodes if _can_be_split(graph, node)}
    added = Additions(graph)

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op == "Concat" and set(node.inputs) & set(split):
                parts = [
                    part
                    for value in node.inputs
                    for part in (halves[value] if value in split else (value,))
                ]
                wider = (added.replacement(node.output),)
                yield dataclasses.replace(node, inputs=tuple(parts), outputs=wider)
            elif (joined := graph.producer(node.inputs[0])) is not None and (
                joined.op == "Concat" and set(joined.inputs) & set(split)
            ):
                kernel = graph.constants[node.inputs[1]]
                twice = _with_negated(graph, kernel, joined, split)
                name = added.constant(f"{node.inputs[1]}/signs", twice, node.inputs[1])
                yield dataclasses.replace(node, inputs=(node.inputs[0], name, node.inputs[2]))
            elif node.outputs[0] not in split or _read_elsewhere(graph, node.output):
                yield node
            if node.outputs[0] in split:
                yield from makers[node.output]

    halves: dict[str, tuple[str, str]] = {}
    makers: dict[str, list[Node]] = {}
    for value, node in split.items():
        weight, bias = node.inputs[1:]
        makers[value] = []
        names = []
        for sign, label in ((1, "positive"), (-1, "negative")):
            raw = added.activation(f"{value}/{label}/raw", f"{value}/{label}/raw")
            part = added.activation(f"{value}/{label}", f"{value}/{label}")
            operands = (
                node.inputs[0],
                added.constant(f"{weight}/{label}", sign * graph.constants[weight], weight),
                added.constant(f"{bias}/{label}", sign * graph.constants[bias], bias),
            )
            makers[value] += [
                dataclasses.replace(node, inputs=operands, outputs=(raw,)),
                Node("Relu", node.name, (raw,), (part,)),
            ]
            names.append(part)
        halves[value] = (names[0], names[1])
    return added.graph(rewritten()) if split else graph


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


def _read_elsewhere(graph: Graph, value: str) -> bool:
    return any(reader.op != "Concat" for reader in graph.consumers(value))


def _with_negated(graph: Graph, kernel: Array, joined: Node, split: dict[str, Node]) -> Array:
    """Return the kernel that reads a concatenation, with the inputs of split values twice."""
    channels, first = graph.channels(), 0
    blocks: list[Array] = []
    for value in joined.inputs:
        block = kernel[:, first : first + channels[value]]
        blocks += [block, -block] if value in split else [block]
        first += channels[value]
    return np.concatenate(blocks, axis=1)
