"""Cutting a network at its global pooling, so that it can restore a picture tile by tile.

A network that weighs its features by their averages over the whole picture would weigh them
differently in every tile. The cut graph has the features as an output and their average as an
input: a first pass over all tiles sums the features, and a second pass restores each tile with the
average of the whole picture (``runtime.tiling``).
"""

from __future__ import annotations

import dataclasses

from export.errors import CannotLower
from export.graph import Graph, Pooling
from export.operators import Trait
from export.sampling import PICTURE


def restores_tiles(graph: Graph) -> bool:
    """Tell whether pictures can be restored in tiles, by a file that is cut or as it is."""
    try:
        return not graph.pools_globally or cut_at_pooling(graph) is not None
    except CannotLower:
        return False


def cut_at_pooling(graph: Graph) -> Graph:
    """Replace the global pooling by an output for its operand and an input for its result.

    Raises:
        CannotLower: If the graph does not have exactly one global pooling, or pools features of
            another height and width than the picture's.
    """
    pools = [node for node in graph.nodes if node.op == "GlobalAveragePool"]
    if len(pools) != 1:
        raise CannotLower(
            f"{len(pools)} global poolings found; tiles are restored in two passes, which takes "
            "exactly one"
        )
    others = (node for node in graph.nodes if Trait.GLOBAL in node.operator.traits)
    if (other := next(others, None)) is not None:
        raise CannotLower(f"{other.name}: {other.op} depends on the whole picture, too")
    (pool,) = pools
    (features,) = pool.inputs
    if graph.sizes()[features] != PICTURE:
        raise CannotLower(f"{pool.name}: pools features of another size than the picture's")
    pooling = Pooling(features, pool.output, graph.channels()[features])
    nodes = [node for node in graph.nodes if node is not pool]
    return dataclasses.replace(graph.with_nodes(nodes), pooling=pooling)
