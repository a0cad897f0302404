"""Orders and units of channels, folded into the kernels beside them.

A network that takes pictures in blue, green, red or in levels up to 255 begins with a 1×1
convolution that picks and multiplies channels, and ends with one that undoes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from export.graph import Array, Graph, Node


def fold_orders(graph: Graph) -> Graph:
    """Fold convolutions that only pick and multiply channels into those before or behind.

    Args:
        graph: As captured. What is read by something else than ungrouped convolutions, or made by
            something else than one, is left alone.

    Returns:
        A graph that computes the same, without names of its own for what was changed.
    """
    for node in graph.nodes:
        kernel = _order_of(graph, node)
        folded = (
            None if kernel is None else _behind(graph, node, kernel) or _before(graph, node, kernel)
        )
        if folded is not None:
            return fold_orders(folded)
    return graph


def _order_of(graph: Graph, node: Node) -> Array | None:
    """Return the out × in kernel of a node that makes each channel from one; else None."""
    if not _is_plain(graph, node):
        return None
    _, weight, bias = node.inputs
    kernel = graph.constants[weight]
    if kernel.shape[2:] != (1, 1) or graph.constants[bias].any():
        return None
    matrix: Array = kernel[:, :, 0, 0]
    return matrix if ((matrix != 0).sum(axis=1) == 1).all() else None


def _is_plain(graph: Graph, node: Node | None) -> bool:
    """Tell whether a node is an ungrouped convolution by constants."""
    return (
        node is not None
        and node.op == "Conv"
        and node.integer("groups") == 1
        and all(graph.is_constant(name) for name in node.inputs[1:])
    )


def _behind(graph: Graph, order: Node, matrix: Array) -> Graph | None:
    """Let the convolutions that read channels in an order read those it is made of."""
    readers = graph.consumers(order.output)
    outside = order.output in graph.outputs
    if outside or not readers or not all(_is_plain(graph, one) for one in readers):
        return None
    changed, constants = {}, {}
    for reader in readers:
        value, weight, bias = reader.inputs
        if value != order.output:
            return None
        name = f"{weight}.{order.output}"
        constants[name] = np.einsum("oihw,ij->ojhw", graph.constants[weight], matrix)
        changed[reader.output] = dataclasses.replace(reader, inputs=(order.inputs[0], name, bias))
    return _with(graph, order, changed, constants)


def _before(graph: Graph, order: Node, matrix: Array) -> Graph | None:
    """Let the convolution before an order, if nothing else reads it, make the channels in order."""
    maker = graph.producer(order.inputs[0])
    if maker is None or not _is_plain(graph, maker) or graph.sole_consumer(maker.output) != order:
        return None
    value, weight, bias = maker.inputs
    names = (f"{weight}.{order.output}", f"{bias}.{order.output}")
    constants = {
        names[0]: np.einsum("oi,ijhw->ojhw", matrix, graph.constants[weight]),
        names[1]: matrix @ graph.constants[bias],
    }
    made = dataclasses.replace(maker, inputs=(value, *names), outputs=order.outputs)
    return _with(graph, order, {maker.output: made}, constants)


def _with(
    graph: Graph, gone: Node, changed: Mapping[str, Node], constants: Mapping[str, Array]
) -> Graph:
    nodes: Iterable[Node] = (changed.get(one.outputs[0], one) for one in graph.nodes if one != gone)
    kept = tuple(nodes)
    used = {name for node in kept for name in node.inputs}
    arrays = {**graph.constants, **constants}
    return dataclasses.replace(
        graph,
        nodes=kept,
        constants={name: array for name, array in arrays.items() if name in used},
    ).check()
