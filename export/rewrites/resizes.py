"""Enlargements by repeated pixels: done after the convolution behind them, or by a shuffle.

Repeating pixels moves much memory for nothing that was not there before, TFLite's operator needs
sizes that are known when the file is written, and some NPUs have none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from export.graph import Graph, Node
from export.node import Attribute
from export.rewrites.additions import Additions
from export.rewrites.shuffles import block_kernel


def convolve_before_resizes(graph: Graph) -> Graph:
    """Move the convolutions that read repeated pixels before the repetition, which they replace.

    The moved convolution makes the r × r pixels of a block as channels, and a shuffle lays them
    out. All pixels of a block are one pixel of its input, so that the weights that meet it add up.
    A kernel of at least 3×3 pixels needs no more MultAdds than before.
    """
    added = Additions(graph)
    resizes = {node.output: node for node in graph.nodes if node.op == "Resize"}
    moved = {
        node.output: resizes[node.inputs[0]]
        for node in graph.nodes
        if node.op == "Conv" and node.inputs[0] in resizes
    }
    needed = {
        value
        for value in resizes
        if value in graph.outputs
        or any(reader.outputs[0] not in moved for reader in graph.consumers(value))
    }

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            resize = moved.get(node.outputs[0])
            if node.op == "Resize" and node.output not in needed:
                continue
            if resize is None:
                yield node
                continue
            (value,), factor = resize.inputs, resize.integer("factor")
            _, weight, bias = node.inputs
            kernel = graph.constants[weight]
            blocks = block_kernel(kernel, factor)
            blocks = blocks.reshape(len(blocks), kernel.shape[1], factor**2, *blocks.shape[2:])
            operands = (
                value,
                added.constant(f"{weight}/resized", blocks.sum(2), weight),
                added.constant(f"{bias}/resized", graph.constants[bias].repeat(factor**2), bias),
            )
            made = added.activation(f"{node.output}/blocks", f"{node.output}/blocks")
            yield dataclasses.replace(node, inputs=operands, outputs=(made,))
            yield _shuffle(node, made, factor)

    return added.graph(rewritten())


def resize_by_shuffles(graph: Graph) -> Graph:
    """Repeat pixels by a 1×1 convolution that copies every channel r² times, and a shuffle."""
    added, channels = Additions(graph), graph.channels()

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op != "Resize":
                yield node
                continue
            factor, count = node.integer("factor"), channels[node.output]
            copies = np.eye(count, dtype=np.float32).repeat(factor**2, axis=0)[..., None, None]
            shifts = np.zeros(len(copies), np.float32)
            operands = (
                node.inputs[0],
                added.constant(f"{node.output}/copies.weight", copies),
                added.constant(f"{node.output}/copies.bias", shifts),
            )
            made = added.activation(f"{node.output}/copies", f"{node.output}/copies")
            yield Node("Conv", node.name, operands, (made,), {"groups": 1})
            yield _shuffle(node, made, factor)

    return added.graph(rewritten())


def _shuffle(node: Node, blocks: str, factor: int) -> Node:
    """Return the shuffle of ``blocks`` that makes what ``node`` made."""
    order: dict[str, Attribute] = {"block": factor, "mode": "CRD"}
    return Node("DepthToSpace", node.name, (blocks,), node.outputs, order)
