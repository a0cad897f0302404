"""Bias correction: subtracting from biases the shift that int8 causes in the mean of each channel.

Rounded weights and clipped activations shift the mean of a convolution's output, and later layers
carry the shift on. The shift is measured on calibration pictures and subtracted from the bias, from
the first convolution to the last, so that each correction includes the shifts that remain from
earlier layers (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2, with measured means). Where a ReLU follows, only pixels with
positive values count: the ReLU discards the errors of all others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from export.execution import Interpreter
from export.graph import Graph
from export.rewrites.requantization import with_requantization
from export.rewrites.roundings import with_roundings
from export.scales import ScaleTable
from quantize.calibration import small_crops
from quantize.simulator import CONVOLUTIONS, Simulator


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
    pictures = _stacked(small_crops(images, graph.sides))
    # Kernels that a rewrite made up are exact in int8 and need no correction.
    corrected = {
        node.output
        for node in graph.nodes
        if node.op in CONVOLUTIONS and graph.is_captured(graph.origin(node.inputs[1]))
    }
    rounded_graph = with_requantization(with_roundings(graph, table.roundings), table)
    measured = _Means(graph, corrected)
    simulator = _Corrected(rounded_graph, table, measured, pictures.dtype)
    with torch.inference_mode():
        measured(pictures)
        simulator(pictures)
    # Six digits are far below a quantum of any bias.
    return {
        graph.origin(name): tuple(float(f"{value:.6g}") for value in shift.tolist())
        for name, shift in simulator.shifts.items()
    }


class _Means(Interpreter):
    """Measures the mean of each channel of some activations.

    Attributes:
        counted: The pixels that count: all, or those that the Relu that follows lets through.
        means: The mean of each channel over these pixels.
    """

    def __init__(self, graph: Graph, names: Collection[str]) -> None:
        super().__init__(graph)
        self._names = names
        self.counted: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        if name in self._names:
            self.counted.setdefault(name, torch.ones_like(value, dtype=torch.bool))
            self.means[name] = self.mean(name, value)
        return value

    def before_relu(self, name: str, value: Tensor) -> Tensor:
        self.counted[name] = value > 0
        return self.activation(name, value)

    def mean(self, name: str, value: Tensor) -> Tensor:
        """Return the mean of each channel of ``value`` over the pixels that count."""
        pixels = self.counted[name]
        return (value * pixels).sum((0, 2, 3)) / pixels.sum((0, 2, 3)).clamp_min(1)


class _Corrected(Simulator):
    """Simulates int8 with the means of activations shifted to the measured ones.

    Attributes:
        shifts: What is added to each channel.
    """

    def __init__(
        self, graph: Graph, table: ScaleTable, measured: _Means, dtype: torch.dtype
    ) -> None:
        super().__init__(graph, table, dtype)
        self._measured = measured
        self.shifts: dict[str, Tensor] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        return super().activation(name, self.before_relu(name, value))

    def before_relu(self, name: str, value: Tensor) -> Tensor:
        if name not in self._measured.means:
            return value
        self.shifts[name] = self._measured.means[name] - self._measured.mean(name, value)
        return value + self.shifts[name].reshape(1, -1, 1, 1)


def _stacked(images: Sequence[Tensor]) -> Tensor:
    height, width = (min(image.shape[axis] for image in images) for axis in (2, 3))
    return torch.cat([image[:, :, :height, :width] for image in images])
