"""Activations multiplied by factors that the convolutions around them make up for.

The inputs of a concatenation share one 8-bit scale in every file. One input's range may be five
times another's; the same is true of the channels of one activation. A factor evens the ranges out:
the convolution that makes an activation multiplies it, and the kernels that read the activation are
divided by the same factor. Factors of whole
activations are powers of two, so that the division is exact; those of channels need not be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from export.graph import Array, Graph, Node
from export.rewrites.additions import Additions
from export.scales import Gain


def combined_gains(
    by_channel: Mapping[str, tuple[float, ...]], factors: Mapping[str, float]
) -> dict[str, Gain]:
    """Return gains that do what ``by_channel`` and then ``factors`` do."""
    combined = {
        value: tuple(factors.get(value, 1.0) * one for one in channels)
        for value, channels in by_channel.items()
    }
    return {**factors, **combined}


def with_gains(graph: Graph, gains: Mapping[str, Gain]) -> Graph:
    """Multiply activations by factors, and divide the kernels that read them.

    Args:
        graph: After the rewrites of ``export.profiles.QUANTIZED_FORM``, before all others.
        gains: As ``ScaleTable.gains``; activations that are not named get 1. Inputs and outputs of
            operators other than convolutions and concatenations must have equal gains, as
            ``export.rewrites.gain_groups`` groups them.
    """
    channels, added = graph.channels(), Additions(graph)
    joined = {node.output: node.inputs for node in graph.nodes if node.op == "Concat"}

    def factors(value: str) -> Array:
        if value in joined:
            return np.concatenate([factors(one) for one in joined[value]])
        return np.full(channels[value], gains.get(graph.origin(value), 1.0), np.float32)

    def rewritten(node: Node) -> Node:
        if node.op != "Conv":
            return node
        value, weight, bias = node.inputs
        before, after = factors(value), factors(node.output)
        if np.all(before == 1) and np.all(after == 1):
            return node
        kernel, groups = graph.constants[weight], node.integer("groups")
        by_group = kernel.reshape(groups, -1, *kernel.shape[1:])
        divided = (by_group / before.reshape(groups, 1, -1, 1, 1)).reshape(kernel.shape)
        operands = (
            value,
            added.constant(f"{weight}/gains", divided * after.reshape(-1, 1, 1, 1), weight),
            added.constant(f"{bias}/gains", graph.constants[bias] * after, bias),
        )
        return dataclasses.replace(node, inputs=operands)

    return added.graph(map(rewritten, graph.nodes))
