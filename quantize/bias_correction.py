"""Bias correction: subtracting from biases the shift that int8 causes in the mean of each channel.

Rounded weights and clipped activations shift the mean of a convolution's output, and later layers
carry the shift on. The shift is measured on calibration pictures and subtracted from the bias, from
the first convolution to the last, so that each correction includes the shifts that remain from
earlier layers (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2, with measured means). Where a ReLU follows, only pixels with
positive values count: the ReLU discards the errors of all others.
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

# Enough for a mean: each channel of a picture has thousands of values.
_PICTURES, _SIDE = 16, 64


def bias_corrections(
    graph: Graph, table: ScaleTable, images: Sequence[Tensor]
) -> Mapping[str, tuple[float, ...]]:
    """Return the corrections of biases with which int8 keeps the mean of every channel.

    Args:
        graph: The result of ``export.rewrites.gains.with_gains``.
        table: The scales and roundings.
        images: Pictures, 1 × 3 × H × W in [0, 1]. The first sixteen are used, as one batch, cropped
            to 64×64 pixels or to the size of the smallest.

    Returns:
        As ``ScaleTable.corrections``.
    """
    pictures = _stacked(images[:_PICTURES])
    # Kernels that a rewrite made up are exact in int8 and need no correction.
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
