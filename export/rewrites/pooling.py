"""Cutting a network at its global pooling, so that it can restore a picture tile by tile.

A tile knows nothing of the rest of the picture, so a network that weighs its features by what they
are on average over the whole picture would weigh them differently in every tile. The cut graph
hands its features out and takes their average in: one pass over all tiles sums the features, a
second one restores with the average of the whole picture (``runtime.tiling``).
"""

from __future__ import annotations

import dataclasses

from export.errors import CannotLower
from export.graph import Graph, Pooling


def cut_at_pooling(graph: Graph) -> Graph:
    """Return the graph without its global pooling, what it read handed out and its result in.

    Raises:
        CannotLower: If the graph has not exactly one global pooling, or pools features that are
            larger than the picture.
    """
    pools = [node for node in graph.nodes if node.op == "GlobalAveragePool"]
    if len(pools) != 1:
        raise CannotLower(
            f"{len(pools)} global poolings found; tiles are restored in two passes, which takes "
            "exactly one"
        )
    (pool,) = pools
    (features,) = pool.inputs
    if graph.resolutions()[features] != 1:
        raise CannotLower(f"{pool.name}: pools features of another size than the picture's")
    pooling = Pooling(features, pool.output, graph.channels()[features])
    nodes = [node for node in graph.nodes if node is not pool]
    return dataclasses.replace(graph.with_nodes(nodes), pooling=pooling)
