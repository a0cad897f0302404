"""Slopes of at most one, so that a PRelu is the larger of two values.

With such slopes max(x, 0) + a · min(x, 0) = max(x, a · x). Values above zero keep their 8 bits and
are not rounded again, and TFLite has vector code for both operators, which its int8 PRELU lacks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from export.graph import Array, Graph, Node
from export.rewrites.additions import Additions
from export.rewrites.scalings import fold_scaling


def flatten_slopes(graph: Graph) -> Graph:
    """Turn the channels of a PRelu whose slope is above one around.

    PRelu(x) with slope a is −a · PRelu(−x) with slope 1/a. The convolution before makes −x, and the
    convolutions behind take over −a; a PRelu that lies between anything else stays.
    """
    steep = {node.output: node for node in graph.nodes if _can_be_flattened(graph, node)}
    if not steep:
        return graph
    added = Additions(graph)

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.outputs[0] not in steep:
                yield node
                continue
            value, name = node.inputs
            slopes = graph.constants[name]
            above = slopes > 1
            turned, bent = (added.activation(f"{one}/turned", one) for one in (value, node.output))
            flat = added.constant(f"{name}/flat", _reciprocal(slopes, above), name)
            signs = added.constant(f"{name}/signs", _plane(np.where(above, -1, 1)))
            back = added.constant(f"{name}/back", _plane(np.where(above, -slopes, 1)))
            yield Node("Mul", node.name, (value, signs), (turned,))
            yield Node("PRelu", node.name, (turned, flat), (bent,))
            yield Node("Mul", node.name, (bent, back), node.outputs)

    return fold_scaling(added.graph(rewritten()))


def _reciprocal(slopes: Array, where: NDArray[np.bool_]) -> Array:
    return np.reciprocal(slopes, out=slopes.copy(), where=where)


def _plane(factors: Array) -> Array:
    return factors.astype(np.float32).reshape(1, -1, 1, 1)


def _can_be_flattened(graph: Graph, node: Node) -> bool:
    if node.op != "PRelu" or graph.constants[node.inputs[1]].max() <= 1:
        return False
    producer = graph.producer(node.inputs[0])
    return (
        producer is not None
        and producer.op == "Conv"
        and graph.sole_consumer(producer.output) is node
        and node.output not in graph.outputs
        and all(reader.op == "Conv" for reader in graph.consumers(node.output))
    )
