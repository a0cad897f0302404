"""Multiplication by constants, folded into the kernels around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from export.graph import Array, Graph, Node
from export.operators import CONVOLUTIONS
from export.rewrites.additions import Additions


def fold_scaling(graph: Graph) -> Graph:
    """Fold products with a constant into the convolution before, or the convolutions behind.

    A convolution that only the product reads makes it itself; otherwise the kernels that read the
    product take it over, if nothing else reads it. Products that have neither stay.
    """
    before = {
        node.inputs[0]: node
        for node in graph.nodes
        if _factor_of(graph, node) is not None
        and (producer := graph.producer(node.inputs[0])) is not None
        and producer.op in CONVOLUTIONS
        and graph.sole_consumer(producer.output) is node
    }
    folded = {node.output for node in before.values()}
    behind = {
        node.output: node
        for node in graph.nodes
        if _factor_of(graph, node) is not None
        and node.output not in folded | set(graph.outputs)
        and all(reader.op in CONVOLUTIONS for reader in graph.consumers(node.output))
    }
    added, channels = Additions(graph), graph.channels()

    def factors(product: Node) -> Array:
        found = _factor_of(graph, product)
        assert found is not None
        return np.broadcast_to(found.reshape(-1), (channels[product.output],))

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.outputs[0] in folded or node.outputs[0] in behind:
                continue
            if node.op not in CONVOLUTIONS:
                yield node
                continue
            value, weight, bias = node.inputs
            kernel, shifts = graph.constants[weight], graph.constants[bias]
            scaled, outputs, names = kernel, node.outputs, (weight, bias)
            if (product := behind.get(value)) is not None:
                value = product.inputs[0]
                groups = node.integer("groups")
                by_group = scaled.reshape(groups, -1, *kernel.shape[1:])
                by_input = factors(product).reshape(groups, 1, -1, 1, 1)
                scaled = (by_group * by_input).reshape(kernel.shape)
            if (product := before.get(node.output)) is not None:
                outputs, by_output = product.outputs, factors(product)
                scaled, shifts = scaled * by_output.reshape(-1, 1, 1, 1), shifts * by_output
            if scaled is not kernel:
                names = (
                    added.constant(f"{weight}/scaled", scaled, weight),
                    added.constant(f"{bias}/scaled", shifts, bias),
                )
            yield dataclasses.replace(node, inputs=(value, *names), outputs=outputs)

    return added.graph(rewritten())


def _factor_of(graph: Graph, node: Node) -> Array | None:
    """Return the constant that an activation is multiplied by; None if node does something else."""
    if node.op != "Mul" or not graph.is_constant(node.inputs[1]):
        return None
    constant = graph.constants[node.inputs[1]]
    one_a_channel = constant.size in {1, graph.channels()[node.output]}
    return constant if one_a_channel and not graph.is_constant(node.inputs[0]) else None
