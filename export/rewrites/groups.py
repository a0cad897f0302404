"""Grouped convolutions as dense ones, or as one branch per group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from export.errors import CannotLower
from export.graph import Array, Graph, Node
from export.operators import CONVOLUTIONS
from export.rewrites.additions import Additions
from export.rewrites.shuffles import CHANNELWISE, chain_from_convolution

_SLICE = 4  # channels that a GPU holds side by side


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
            nodes.append(_of_group(graph, link, group, groups, current, added))
            current = nodes[-1].output
        shuffled.append(current)
    nodes.append(Node("Concat", shuffle.name, tuple(shuffled), shuffle.outputs))
    return nodes


def split_grouped_convolutions(graph: Graph) -> Graph:
    """Split grouped convolutions into one branch per group, except depthwise ones.

    For runtimes that compute groups wrongly or not at all. A branch goes on through operators that
    work on single channels and through convolutions in as many groups; branches are concatenated
    where another operator reads them. Kernels and MultAdds stay the same.
    """
    return _split(graph, _groups_to_split)


def split_unaligned_groups(graph: Graph) -> Graph:
    """Split grouped convolutions into one branch per group where a group does not fill slices.

    Kernels for GPUs hold channels in slices of four. LiteRT's abort on int8 convolutions whose
    groups take another number of channels than a multiple of that.
    """

    def groups_of(graph: Graph, node: Node) -> int:
        groups = _groups_to_split(graph, node)
        return groups if groups > 1 and graph.kernel_shape(node)[1] % _SLICE else 1

    return _split(graph, groups_of)


def _split(graph: Graph, groups_of: Callable[[Graph, Node], int]) -> Graph:
    """Split convolutions into as many branches as ``groups_of`` says; 1 leaves one as it is."""
    added = Additions(graph)
    branches: dict[str, tuple[str, ...]] = {}
    whole = set(graph.inputs)

    def joined(values: Iterable[str]) -> Iterator[Node]:
        for value in values:
            if value in branches and value not in whole:
                whole.add(value)
                yield Node("Concat", value, branches[value], (value,))

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            value = node.inputs[0]
            groups = groups_of(graph, node)
            if node.op in CHANNELWISE and value in branches and value not in whole:
                groups = len(branches[value])
            if groups == 1:
                yield from joined(node.inputs)
                yield node
                whole.update(node.outputs)
                continue
            if len(branches.get(value, ())) != groups:
                yield from joined([value])
                branches[value] = tuple(
                    added.activation(f"{value}/{node.output}.{group}", value)
                    for group in range(groups)
                )
                sizes = (graph.kernel_shape(node)[1],) * groups
                yield Node("Split", node.name, (value,), branches[value], {"sizes": sizes})
            copies = [
                _of_group(graph, node, group, groups, branches[value][group], added)
                for group in range(groups)
            ]
            yield from copies
            branches[node.output] = tuple(copy.output for copy in copies)
            yield from joined(name for name in node.outputs if name in graph.outputs)

    return added.graph(rewritten())


def _groups_to_split(graph: Graph, node: Node) -> int:
    """Return the groups of a convolution; 1 if it is depthwise or no convolution."""
    if node.op not in CONVOLUTIONS:
        return 1
    groups = node.integer("groups")
    return 1 if graph.kernel_shape(node)[:2] == (groups, 1) else groups


def _of_group(
    graph: Graph, node: Node, group: int, groups: int, value: str, added: Additions
) -> Node:
    """Return what ``node`` does to the channels of one group."""
    constants = [
        added.constant(f"{name}/{group}", np.split(graph.constants[name], groups)[group], name)
        for name in node.inputs[1:]
    ]
    return dataclasses.replace(
        node,
        inputs=(value, *constants),
        outputs=(added.activation(f"{node.output}/{group}", node.output),),
        attributes={**node.attributes, "groups": 1} if node.op in CONVOLUTIONS else node.attributes,
    )
