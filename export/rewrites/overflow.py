"""What of a channel lies beyond the range of its activation goes on in a channel of its own.

In saturated colours channels reach several times as far as on photographs, and all channels share
one 8-bit scale. Up to a limit, at which the range ends, channel c is held as clip(c, 0, limit),
what lies beyond as clip(c − limit, 0, limit), and so on. Kernels that read c read all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.graph import Array, Graph, Node
from export.rewrites.additions import Additions
from export.scales import Overflow, ScaleTable
from runtime.errors import UserError


@dataclass(frozen=True)
class Surroundings:
    """The nodes around an activation that may overflow.

    Attributes:
        conv: The convolution that makes it.
        relu: The Relu after the convolution, which makes it.
        shuffles: The DepthToSpace nodes that read it; none if convolutions do.
        readers: The convolutions that read it, or what shuffles make of it.
        channels: The number of channels that the readers see.
        blocks: The number of runs of channels that groups of convolutions keep together.
    """

    conv: Node
    relu: Node
    shuffles: tuple[Node, ...]
    readers: tuple[Node, ...]
    channels: int
    blocks: int


def surroundings(graph: Graph) -> dict[str, Surroundings]:
    """Return the activations that may overflow, by name.

    A convolution and a Relu make them, and only convolutions read them, directly or shuffled.
    """
    found = (_around(graph, node) for node in graph.nodes if node.op == "Conv")
    return {one.relu.output: one for one in found if one is not None}


def _around(graph: Graph, conv: Node) -> Surroundings | None:
    relu = graph.fused_relu(conv)
    if relu is None or relu.output in graph.outputs:
        return None
    read = graph.consumers(relu.output)
    shuffles = tuple(node for node in read if node.op == "DepthToSpace")
    if shuffles and (len(read) > 1 or shuffles[0].attributes["mode"] != "CRD"):
        return None
    seen = shuffles[0].output if shuffles else relu.output
    readers = tuple(graph.consumers(seen))
    if not readers or seen in graph.outputs or any(node.op != "Conv" for node in readers):
        return None
    channels = graph.channels()[seen]
    blocks = math.lcm(*(node.integer("groups") for node in (conv, *readers)))
    return Surroundings(conv, relu, shuffles, readers, channels, blocks)


def with_overflow(graph: Graph, overflow: Mapping[str, Overflow]) -> Graph:
    """Let channels of activations overflow into channels that are added for them.

    Args:
        graph: The result of ``export.rewrites.gains.with_gains``.
        overflow: As ``ScaleTable.overflow``.

    Raises:
        UserError: If the graph has no such activations or channels.
    """
    for value, one in overflow.items():
        around = surroundings(graph).get(value)
        if around is None:
            raise UserError(
                f"the table of scales lets '{value}' overflow, which this network cannot do; "
                "run 'reslite quantize' again"
            )
        graph = _overflowing(graph, around, one)
    return graph


def _overflowing(graph: Graph, around: Surroundings, overflow: Overflow) -> Graph:
    value, added = around.relu.output, Additions(graph)
    order, starts = _order(around, overflow)
    # Neighbouring channels before a DepthToSpace become one.
    joined = graph.channels()[value] // around.channels
    made = (order[:, None] * joined + np.arange(joined)).ravel()
    read, weight, bias = around.conv.inputs
    shifted = graph.constants[bias][made] - starts.repeat(joined)
    operands = (
        read,
        added.constant(f"{weight}/overflow", graph.constants[weight][made], weight),
        added.constant(f"{bias}/overflow", shifted, bias),
    )
    whole = added.activation(f"{value}/unlimited", value)
    raw, limited = added.replacement(around.conv.output), added.replacement(value)
    for shuffle in around.shuffles:
        added.replacement(shuffle.output)
    bounds = {"minimum": 0.0, "maximum": overflow.limit}
    changed = {
        raw: [dataclasses.replace(around.conv, inputs=operands)],
        limited: [
            dataclasses.replace(around.relu, outputs=(whole,)),
            Node("Clip", around.relu.name, (whole,), (limited,), bounds),
        ],
        **{node.output: [_reading(graph, added, node, order)] for node in around.readers},
    }
    nodes = (one for node in graph.nodes for one in changed.get(node.outputs[0], [node]))
    return added.graph(nodes)


def _order(around: Surroundings, overflow: Overflow) -> tuple[NDArray[np.intp], Array]:
    """Return which channel each channel of the new activation holds, and from which value on.

    What is added to a block of channels comes after it.
    """
    added = np.array(overflow.channels, np.intp)
    block = added // (around.channels // around.blocks)
    if not np.array_equal(np.bincount(block), [len(added) // around.blocks] * around.blocks):
        raise UserError(
            f"the table of scales lets channels {overflow.channels} of '{around.relu.output}' "
            f"overflow, which has {around.channels}; expected equally many of each of "
            f"{around.blocks} groups: run 'reslite quantize' again"
        )
    times = [overflow.channels[:place].count(one) for place, one in enumerate(overflow.channels, 1)]
    kept = np.arange(around.channels), np.zeros(around.channels)
    further = added, overflow.limit * np.array(times)
    order, starts = (
        np.concatenate([a.reshape(around.blocks, -1), b.reshape(around.blocks, -1)], axis=1).ravel()
        for a, b in zip(kept, further, strict=True)
    )
    return order, starts.astype(np.float32)


def _reading(graph: Graph, added: Additions, node: Node, order: NDArray[np.intp]) -> Node:
    """Return a convolution that reads ``order``, channels of what it read before, in its place."""
    value, weight, bias = node.inputs
    kernel, groups = graph.constants[weight], node.integer("groups")
    by_group = kernel.reshape(groups, -1, *kernel.shape[1:])
    places = order.reshape(groups, -1) % kernel.shape[1]
    wider = [one[:, chosen] for one, chosen in zip(by_group, places, strict=True)]
    name = added.constant(f"{weight}/overflow", np.concatenate(wider), weight)
    return dataclasses.replace(node, inputs=(value, name, bias))


def leave_limits_to_rounding(graph: Graph, table: ScaleTable) -> Graph:
    """Drop each Clip at the ends of the range of its activation, because rounding clips there.

    Args:
        graph: The result of ``with_overflow``, kernels rounded.
        table: The scales.
    """

    def is_range(node: Node) -> bool:
        name = graph.origin(node.output)
        if node.op != "Clip" or name not in table.overflow:
            return False
        found = table.of(name)
        return found.zero_point == -128 and 255 * found.scale <= node.number("maximum") * (1 + 1e-6)

    clips = {node.inputs[0]: node for node in graph.nodes if is_range(node)}
    added = Additions(graph)

    def renamed(node: Node) -> Node:
        if node.op == "Clip" or node.outputs[0] not in clips:
            return node
        return dataclasses.replace(node, outputs=(added.replacement(clips[node.output].output),))

    kept = (node for node in graph.nodes if node not in clips.values())
    return added.graph(map(renamed, kept))
