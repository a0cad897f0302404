"""Parameters and MultAdds of a network, layer by layer, from its module and from its graph.

MultAdds are counted as in the papers: convolutions only, a multiply-accumulate is 1, at an output
of 1280 × 720. The input size is the output size divided by the scale, not rounded (×3: 426⅔ × 240).
A block that is used several times counts its MultAdds at every use and its parameters once.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.graph import Graph
from runtime.manifest import HD
from training.networks.interface import NetworkConfig
from training.shipped import Costs


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer.

    Attributes:
        name: Path of the module in its network.
        parameters: Weights and biases.
        multadds: Multiply-accumulates of its convolutions, over all its uses.
    """

    name: str
    parameters: int
    multadds: int


def layers_of_module(
    module: nn.Module, scale: int, output: tuple[int, int] = HD, colours: int = 3
) -> tuple[LayerCost, ...]:
    """Count a network by running it on the meta device, where nothing is computed.

    Args:
        module: Takes N × C × H × W pictures; enlarges them ``scale`` times.
        scale: Upscaling factor.
        output: Width and height of the restored picture.
        colours: Channels of the picture.

    Returns:
        The modules that hold parameters or convolve, in the order of ``named_modules``.
    """
    network = copy.deepcopy(module).to("meta").eval()
    # A layer's cost is a constant (after global pooling) plus a cost per input pixel. Two small
    # sizes determine both, so that the real size need not be an integer.
    small, large = (_multadds_at(network, side, colours) for side in (8, 16))
    pixels = Fraction(output[0] * output[1], scale**2)
    rows = []
    for name, part in network.named_modules():
        per_pixel = Fraction(large[name] - small[name], 16**2 - 8**2)
        multadds = small[name] + per_pixel * (pixels - 8**2)
        parameters = sum(one.numel() for one in part.parameters(recurse=False))
        rows.append(LayerCost(name, parameters, round(multadds)))
    return tuple(row for row in rows if row.parameters or row.multadds)


def layers_of_graph(graph: Graph, output: tuple[int, int] = HD) -> tuple[LayerCost, ...]:
    """Count the convolutions of a graph; a lowered graph gives the operations of the file.

    Args:
        graph: A captured graph, or a lowered one, in which dense kernels and shuffles made into
            convolutions count fully.
        output: Width and height of the restored picture.

    Returns:
        A row for each module with a convolution, in the order of first use.
    """
    multadds: Counter[str] = Counter()
    constants: dict[str, set[str]] = {}
    for node, count in graph.layer_multadds(*output):
        multadds[node.name] += count
        constants.setdefault(node.name, set()).update(node.inputs[1:])
    return tuple(
        LayerCost(name, sum(graph.constants[one].size for one in constants[name]), count)
        for name, count in multadds.items()
    )


def total(layers: Iterable[LayerCost]) -> LayerCost:
    """Return the sum of ``layers``, named ``total``."""
    rows = tuple(layers)
    return LayerCost("total", sum(r.parameters for r in rows), sum(r.multadds for r in rows))


def costs_of(config: NetworkConfig) -> Costs:
    """Return the parameters and the MultAdds of a network at each of its scales."""
    network = config.build()
    at = {
        str(scale): total(layers_of_module(network.at_scale(scale), scale, colours=config.colours))
        for scale in config.scales
    }
    parameters = {scale: cost.parameters for scale, cost in at.items()}
    parameters["all"] = sum(one.numel() for one in network.parameters())
    return Costs(parameters, {scale: cost.multadds for scale, cost in at.items()})


def _multadds_at(module: nn.Module, side: int, colours: int) -> Counter[str]:
    """Return the MultAdds that each module itself executes, without those of its children."""
    counter = FlopCounterMode(display=False)
    own: Counter[str] = Counter()
    running: list[tuple[int, int]] = []  # for each running module: flops at its start, of children

    def convolved() -> int:
        # Not get_flop_counts, which copies the counts of all modules.
        return int(counter.flop_counts["Global"][torch.ops.aten.convolution])

    def enter(part: nn.Module, inputs: object) -> None:
        running.append((convolved(), 0))

    def leave(part: nn.Module, inputs: object, outputs: object) -> None:
        start, children = running.pop()
        spent = convolved() - start
        own[names[part]] += (spent - children) // 2
        if running:
            running[-1] = (running[-1][0], running[-1][1] + spent)

    names = {part: name for name, part in module.named_modules()}
    hooks = [part.register_forward_pre_hook(enter) for part in names]
    hooks += [part.register_forward_hook(leave) for part in names]
    try:
        with counter, torch.no_grad():
            module(torch.empty(1, colours, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return own
