"""Networks that were trained on other pictures than RGB in [0, 1], made to take those."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture.orders import fold_orders
from export.graph import Array, Graph, Node
from export.graph_module import GraphModule
from export.sources.foreign import Foreign
from export.sources.options import Options

_ORDERS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0]}


def in_plain_pictures(network: Foreign, options: Options) -> Foreign:
    """Return a network that takes and returns RGB in [0, 1], whatever it was trained on.

    Args:
        network: From pictures in the range and order of colours that ``options`` names.
        options: What the person says of the network.
    """
    peak, colour = options.peak or 1, options.colour or "rgb"
    if (peak, colour) == (1, "rgb"):
        return network
    digest = hashlib.sha256(f"{network.sha256} {peak} {colour}".encode())
    order = np.eye(3, dtype=np.float32)[_ORDERS[colour]].reshape(3, 3, 1, 1)
    first, last = order * np.float32(peak), order.swapaxes(0, 1) / np.float32(peak)
    return dataclasses.replace(
        network,
        sha256=digest.hexdigest(),
        known={**network.known, "range": peak, "colour": colour},
        modules={scale: _between(first, module, last) for scale, module in network.modules.items()},
    )


def _between(first: Array, module: nn.Module, last: Array) -> nn.Module:
    """Return a module between two 1×1 convolutions, folded into its own where they can be."""
    if isinstance(module, GraphModule):
        return GraphModule(_with_ends(first, module.graph, last)).eval()
    return _Between(torch.from_numpy(first), module, torch.from_numpy(last)).eval()


def _with_ends(first: Array, graph: Graph, last: Array) -> Graph:
    image, restored = f"{graph.input}.plain", f"{graph.output}.plain"
    bias = np.zeros(3, np.float32)
    constants = {f"{image}.order": first, f"{restored}.order": last, f"{image}.bias": bias}

    def convolution(value: str, output: str, place: str) -> Node:
        operands = (value, f"{place}.order", f"{image}.bias")
        return Node("Conv", place, operands, (output,), {"groups": 1})

    names = {graph.input: image, graph.output: restored}
    inner = [
        dataclasses.replace(
            node,
            inputs=tuple(names.get(name, name) for name in node.inputs),
            outputs=tuple(names.get(name, name) for name in node.outputs),
        )
        for node in graph.nodes
    ]
    ends = (convolution(graph.input, image, image), convolution(restored, graph.output, restored))
    nodes = (ends[0], *inner, ends[1])
    wider = dataclasses.replace(graph, nodes=nodes, constants={**graph.constants, **constants})
    return fold_orders(wider.check())


class _Between(nn.Module):
    """A network between two 1×1 convolutions, which capturing folds into its own."""

    first: Tensor
    last: Tensor

    def __init__(self, first: Tensor, network: nn.Module, last: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("first", first)
        self.register_buffer("last", last)

    def forward(self, image: Tensor) -> Tensor:
        """Restore N × 3 × H × W pictures, RGB in [0, 1]."""
        return F.conv2d(self.network(F.conv2d(image, self.first)), self.last)
