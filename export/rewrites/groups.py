"""Grouped convolutions as dense ones, or as one branch per group."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from export.errors import CannotLower
from export.graph import Array, Graph, Node
from export.operators import CONVOLUTIONS
from export.rewrites.additions import Additions
from export.rewrites.shuffles import chain_from_convolution


def make_convolutions_dense(graph: Graph) -> Graph:
    """Turn grouped convolutions into plain ones with block-diagonal kernels.

    The added MultAdds multiply by zero, but many runtimes compute a dense convolution faster than a
    grouped one.
    """
    added = Additions(graph)

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op not in CONVOLUTIONS or node.integer("groups") == 1:
                yield node
                continue
            value, weight, bias = node.inputs
            dense = block_diagonal(graph.constants[weight], node.integer("groups"))
            name = added.constant(f"{weight}/dense", dense, weight)
            yield dataclasses.replace(
                node, inputs=(value, name, bias), attributes={**node.attributes, "groups": 1}
            )

    return added.graph(rewritten())


def block_diagonal(weight: Array, groups: int) -> Array:
    """Turn the kernel of a grouped convolution into the kernel of a dense one.

    Args:
        weight: Output × input/groups × k × k.
        groups: Number of groups.

    Returns:
        Output × input × k × k, zero between channels of different groups.
    """
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    dense = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), np.float32)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return dense


def split_shuffled_convolutions(graph: Graph) -> Graph:
    """Split each grouped convolution that feeds a shuffle into one branch per group.

    DCR order would move channels of a grouped convolution across its groups. In each branch, an
    ungrouped convolution with a shuffle of its own, channels can be put in any order.

    Raises:
        CannotLower: If a group does not hold whole channels of the shuffle's output.
    """
    added = Additions(graph)
    nodes = list(graph.nodes)
    for shuffle in [node for node in graph.nodes if node.op == "DepthToSpace"]:
        chain = chain_from_convolution(graph, shuffle)
        conv, groups = chain[0], chain[0].integer("groups")
        if groups == 1:
            continue
        outputs = graph.constants[conv.inputs[1]].shape[0] // groups
        if shuffle.attributes["mode"] != "CRD" or outputs % shuffle.integer("block") ** 2:
            raise CannotLower(
                f"{conv.name}: the {groups} groups of this convolution do not hold whole channels "
                "of the shuffle after it; make it dense"
            )
        branches = _branches(graph, chain, groups, added)
        start = nodes.index(conv)
        nodes = [node for node in nodes if node not in chain]
        nodes[start:start] = branches
    return added.graph(nodes)


def _branches(graph: Graph, chain: Sequence[Node], groups: int, added: Additions) -> list[Node]:
    """Return Split, one copy of ``chain`` per group, and Concat; ``added`` gets their values."""
    conv, shuffle = chain[0], chain[-1]
    source, inputs = conv.inputs[0], graph.kernel_shape(conv)[1]
    pieces = tuple(
        added.activation(f"{source}/{conv.output}.{group}", source) for group in range(groups)
    )
    nodes = [Node("Split", conv.name, (source,), pieces, {"sizes": (inputs,) * groups})]
    shuffled = []
    for group, piece in enumerate(pieces):
        current = piece
        for link in chain:
            constants = [
                added.constant(
                    f"{name}/{group}", np.split(graph.constants[name], groups)[group], name
                )
                for name in link.inputs[1:]
            ]
            operands = (current, *constants)
            current = added.activation(f"{link.output}/{group}", link.output)
            attributes = {**link.attributes, "groups": 1} if link is conv else link.attributes
            nodes.append(Node(link.op, link.name, operands, (current,), attributes))
        shuffled.append(current)
    nodes.append(Node("Concat", shuffle.name, tuple(shuffled), shuffle.outputs))
    return nodes
