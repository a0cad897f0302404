"""Bias correction: taking back the shift that int8 gives to the mean of every channel.

Rounded weights and clipped activations move the mean of what a convolution returns, and the network
carries that on. The shift is measured on calibration pictures and subtracted from the bias, from
the first convolution to the last, so that each makes up for what those before it left over
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2, with measured means). Where a ReLU follows, only pixels count that it lets through:
what it stops may be off by anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from export.execution import execute
from export.graph import Graph
from export.rewrites.requantization import with_requantization
from export.rewrites.roundings import with_roundings
from export.scales import ScaleTable
from quantize.simulator import CONVOLUTIONS, Simulator, rounded

# More, or larger ones, change nothing: a channel has thousands of values in each.
_PICTURES, _SIDE = 16, 64


def bias_corrections(
    graph: Graph, table: ScaleTable, images: Sequence[Tensor]
) -> Mapping[str, tuple[float, ...]]:
    """Return what to add to the biases of a graph, so that int8 keeps the mean of every channel.

    Args:
        graph: Of ``export.rewrites.gains.with_gains``.
        table: The scales and roundings.
        images: Pictures, 1 × 3 × H × W in [0, 1]. The first sixteen go through each layer together,
            cut to 64×64 pixels or the size of the smallest.

    Returns:
        As ``ScaleTable.corrections``.
    """
    pictures = _stacked(images[:_PICTURES])
    # A kernel that a rewrite made up is exact in int8.
    corrected = {
        node.output
        for node in graph.nodes
        if node.op in CONVOLUTIONS and graph.is_captured(graph.origin(node.inputs[1]))
    }
    counted: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}

    def mean(name: str, value: Tensor) -> Tensor:
        pixels = counted[name]
        return (value * pixels).sum((0, 2, 3)) / pixels.sum((0, 2, 3)).clamp_min(1)

    def remember(name: str, value: Tensor) -> Tensor:
        if name in corrected:
            counted.setdefault(name, torch.ones_like(value, dtype=torch.bool))
            means[name] = mean(name, value)
        return value

    def remember_before_relu(name: str, value: Tensor) -> Tensor:
        counted[name] = value > 0
        return remember(name, value)

    def correct(name: str, value: Tensor) -> Tensor:
        if name not in corrected:
            return value
        shifts[name] = means[name] - mean(name, value)
        return value + shifts[name].reshape(1, -1, 1, 1)

    def correct_and_round(name: str, value: Tensor) -> Tensor:
        return rounded(correct(name, value), table.of(simulator.graph.origin(name)))

    rounded_graph = with_requantization(with_roundings(graph, table.roundings), table)
    simulator = Simulator(rounded_graph, table, pictures.dtype)
    with torch.inference_mode():
        execute(graph, pictures, hook=remember, before_relu=remember_before_relu)
        execute(simulator.graph, pictures, simulator.constants, correct_and_round, correct)
    # Six digits are far below a quantum of any bias.
    return {
        graph.origin(name): tuple(float(f"{value:.6g}") for value in shift.tolist())
        for name, shift in shifts.items()
    }


def _stacked(images: Sequence[Tensor]) -> Tensor:
    height, width = (min(_SIDE, *(image.shape[axis] for image in images)) for axis in (2, 3))
    return torch.cat([image[:, :, :height, :width] for image in images])
