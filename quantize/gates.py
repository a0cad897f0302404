"""The scale of sigmoids' results in 8 bits.

TFLite's int8 LOGISTIC returns 256ths. That suits masks of a whole picture. A gate, which weighs
the channels of a picture by what it pooled of them, may stay far below 1 in all channels: of
mepsnet-s, where the median is 8/256, a quantum was an eighth of a channel's weight. So a gate has a
scale of its own, finer by a power of two. TFLite files look it up in a table, for one pixel, which
costs a CPU next to nothing; LiteRT's GPU and Ethos-U55 have no GATHER.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from export.graph import Graph
from export.sampling import POOLED
from export.scales import SIGMOID, Quantization
from quantize.observers import Range

_ROOM = 1.25
"""How far beyond calibration pictures a gate may reach; clipped, a channel is off everywhere."""


def sigmoid_scales(graph: Graph, full: Mapping[str, Range]) -> dict[str, Quantization]:
    """Return the quantization of the results of all sigmoids, by their names in the captured graph.

    Args:
        graph: Lowered for int8.
        full: The range that clips nothing, of each activation, alike.
    """
    sizes = graph.sizes()
    return {
        name: _gate(full[name][1]) if sizes[node.output] == POOLED else SIGMOID
        for node in graph.nodes
        if node.op == "Sigmoid"
        for name in (graph.origin(node.output),)
    }


def _gate(high: float) -> Quantization:
    """Return the finest 256ths by a power of two that reach ``high`` and room beyond."""
    finer = max(0, math.floor(-math.log2(max(_ROOM * high, 2.0**-16))))
    return Quantization(SIGMOID.scale * 2.0**-finer, SIGMOID.zero_point)
