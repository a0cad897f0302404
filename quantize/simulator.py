"""The quantized graph in torch: the integers that every int8 file must compute.

Weights, biases and activations are the integers of ``export.integers`` and ``export.scales``,
written as real numbers, so that a convolution of them is the integer convolution times its
multipliers. As in runtimes, the multipliers are float32, so that sums on a tie are rounded as
runtimes round them; one tie rounded the other way can change a tenth of the outputs. The simulator
is the reference in the parity check of int8 files, and the search for ranges measures its error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.errors import CannotLower
from export.execution import execute
from export.graph import Graph, Node
from export.integers import output_axis, quantized_bias, quantized_weight, weight_scales
from export.parity import Restore
from export.rewrites.additions import Additions
from export.scales import Quantization, ScaleTable
from quantize.arithmetic import ARITHMETIC, EXACT, Arithmetic
from runtime.formats import Format

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


class Simulator(nn.Module):
    """The int8 form of a graph, as a module from pictures to restored pictures.

    Args:
        graph: Lowered for int8, with the ``Requantize`` nodes that
            ``export.rewrites.requantization`` adds.
        table: The scales.
        dtype: Type of pictures and arithmetic; float64 is exact for networks of any width.
        arithmetic: How a runtime adds activations and changes scales.

    Raises:
        CannotLower: If the graph holds constants outside its convolutions.
        UserError: If the table does not cover the graph.
    """

    def __init__(
        self,
        graph: Graph,
        table: ScaleTable,
        dtype: torch.dtype = torch.float32,
        arithmetic: Arithmetic = EXACT,
    ) -> None:
        super().__init__()
        check_constants(graph)
        self.graph = _with_own_constants(graph)
        self.table = table
        self.arithmetic = arithmetic
        self._requantized = {
            node.output: node.inputs[0] for node in self.graph.nodes if node.op == "Requantize"
        }
        self.constants: Mapping[str, Tensor] = {
            name: torch.from_numpy(array).to(dtype)
            for node in self.graph.nodes
            if node.op in CONVOLUTIONS
            for name, array in _dequantized(self.graph, node, table).items()
        }

    def forward(self, image: Tensor) -> Tensor:
        """Restore N × 3 × H × W pictures; the result is a whole multiple of 1/255 in [0, 1]."""
        return execute(self.graph, image, self.constants, self._rounded, add=self._sum)

    def _rounded(self, name: str, value: Tensor) -> Tensor:
        target = self._quantization(name)
        if (source := self._requantized.get(name)) is not None:
            value = self.arithmetic.requantize(value, self._quantization(source), target)
        return rounded(value, target)

    def _sum(self, node: Node, first: Tensor, second: Tensor) -> Tensor:
        sources = [self._quantization(name) for name in node.inputs]
        return self.arithmetic.add((first, second), sources, _target(self.graph, node, self.table))

    def _quantization(self, name: str) -> Quantization:
        return self.table.of(self.graph.origin(name))


def simulate(graph: Graph, table: ScaleTable, image: Tensor) -> Tensor:
    """Run the int8 form of ``graph`` on N × 3 × H × W pictures in [0, 1] (see ``Simulator``)."""
    with torch.inference_mode():
        restored: Tensor = Simulator(graph, table, image.dtype)(image)
        return restored


def simulated(graph: Graph, table: ScaleTable, file: Format) -> Restore:
    """Return a function that restores one H × W × 3 picture as the int8 file of ``graph`` does.

    It computes in float64, because float32 cannot hold all integer sums exactly.
    """
    simulator = Simulator(graph, table, torch.float64, ARITHMETIC.get(file, EXACT))

    def restore(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            image = torch.from_numpy(picture.transpose(2, 0, 1)[None]).double()
            restored: NDArray[np.float32] = simulator(image)[0].permute(1, 2, 0).float().numpy()
            return restored

    return restore


def rounded(value: Tensor, quantization: Quantization) -> Tensor:
    """Return the nearest real numbers that 8 bits can hold; ties in float32 go to even quanta."""
    scale, zero_point = quantization.scale, quantization.zero_point
    quanta = value.div(scale).float().round_().clamp_(-128 - zero_point, 127 - zero_point)
    return quanta.to(value.dtype).mul_(scale)


def check_constants(graph: Graph) -> None:
    """Refuse graphs that cannot be quantized.

    Raises:
        CannotLower: If a node other than a convolution reads a constant: the table of scales
            covers activations, and ``export.integers`` weights and biases, nothing else.
    """
    for node in graph.nodes:
        if node.op not in CONVOLUTIONS and any(graph.is_constant(name) for name in node.inputs):
            raise CannotLower(
                f"{node.name}: {node.op} with a constant has no int8 form; fold it into a "
                "convolution ('fold_output_shift', 'carry_mean_as_channel')"
            )


def _with_own_constants(graph: Graph) -> Graph:
    """Give every convolution constants of its own, because their values depend on its scales."""
    added = Additions(graph)

    def owning(node: Node) -> Node:
        if node.op not in CONVOLUTIONS:
            return node
        value, *shared = node.inputs
        own = (added.constant(f"{n}/{node.output}", graph.constants[n], n) for n in shared)
        return dataclasses.replace(node, inputs=(value, *own))

    return added.graph(map(owning, graph.nodes))


def _target(graph: Graph, node: Node, table: ScaleTable) -> Quantization:
    """Return what a file rounds the result of a node to: that of a Relu it applies itself."""
    return table.of(graph.origin((graph.fused_relu(node) or node).output))


def _dequantized(graph: Graph, node: Node, table: ScaleTable) -> dict[str, NDArray[np.float64]]:
    """Return the weight and the bias of a convolution as real numbers.

    An integer sum stands for the real number sum × multiplier × scale of the rounded output.
    """
    value, weight, bias = node.inputs
    kernel, axis = graph.constants[weight], output_axis(node)
    source = table.of(graph.origin(value))
    target = _target(graph, node, table)
    multipliers = weight_scales(kernel, axis) * np.float32(source.scale) / np.float32(target.scale)
    worth = multipliers.astype(np.float64) * target.scale
    shape = [-1 if index == axis else 1 for index in range(kernel.ndim)]
    return {
        weight: quantized_weight(kernel, axis) * (worth / source.scale).reshape(shape),
        bias: quantized_bias(graph.constants[bias], kernel, source, axis) * worth,
    }
