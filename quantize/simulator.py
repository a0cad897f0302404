"""The quantized graph in torch: the integers that every int8 file must compute.

Weights, biases and activations are the integers of ``export.integers`` and ``export.scales``,
written as real numbers, so that a convolution of them is the integer convolution times its
multipliers. As in runtimes, the multipliers are float32, so that sums on a tie are rounded as
runtimes round them; one tie rounded the other way can change a tenth of the outputs. The simulator
is the reference in the parity check of int8 files, and the search for ranges measures its error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export import operators
from export.execution import Interpreter
from export.formulas import FORMULAS, NORMALIZATIONS
from export.graph import Graph, Node
from export.integers import (
    output_axis,
    quantized_bias,
    quantized_weight,
    rounded_constant,
    rounded_slopes,
    slope_scale,
    weight_scales,
)
from export.operators import Trait
from export.parity import Restore, restored_part
from export.rewrites.additions import Additions
from export.scales import Quantization, ScaleTable
from export.tables import table_of
from export.writers.writing import REFUSED_INT8, Scales, activation_scales, check_int8
from quantize.arithmetic import ARITHMETIC, EXACT, Arithmetic, Slopes
from runtime.formats import Format

CONVOLUTIONS = operators.CONVOLUTIONS | {"ConvTranspose"}


class Simulator(Interpreter):
    """The int8 form of a graph, as a function from pictures to restored pictures.

    The result is a whole multiple of 1/255 in [0, 1].

    Args:
        graph: Lowered for int8, with the ``Requantize`` nodes that
            ``export.rewrites.requantization`` adds.
        table: The scales.
        dtype: Type of pictures and arithmetic; float64 is exact for networks of any width.
        arithmetic: How a runtime adds activations and changes scales.

    Raises:
        CannotLower: If the graph has no int8 form.
        UserError: If the table does not cover the graph.
    """

    def __init__(
        self,
        graph: Graph,
        table: ScaleTable,
        dtype: torch.dtype = torch.float32,
        arithmetic: Arithmetic = EXACT,
    ) -> None:
        check_int8(graph)
        graph = _with_own_constants(graph)
        self.scales = activation_scales(graph, table)
        self.arithmetic = arithmetic
        constants = {
            name: torch.from_numpy(array).to(dtype)
            for node in graph.nodes
            for name, array in _dequantized(graph, node, self.scales).items()
        }
        super().__init__(graph, constants)

    def activation(self, name: str, value: Tensor) -> Tensor:
        """Round an activation to its 8 bits."""
        return rounded(value, self.scales[name])

    def apply(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of a node before they are rounded to 8 bits."""
        return HANDLERS[node.op](self, node, operands)

    def as_real(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute a node as in float, on real numbers that 8 bits hold."""
        return super().apply(node, operands)

    def add(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Add as the runtime does."""
        sources = [self.scales[name] for name in node.inputs]
        target = _target(self.graph, node, self.scales)
        return (self.arithmetic.add(operands, sources, target),)

    def subtract(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Subtract as the runtime does."""
        sources = [self.scales[name] for name in node.inputs]
        target = _target(self.graph, node, self.scales)
        return (self.arithmetic.subtract(operands, sources, target),)

    def leaky_relu(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bend at zero as the runtime does, by a slope that is no integer."""
        slopes = Slopes(torch.ones((), dtype=operands[0].dtype), node.number("slope"))
        source, target = (self.scales[name] for name in (node.inputs[0], node.output))
        return (self.arithmetic.leaky_relu(operands[0], slopes, source, target),)

    def prelu(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bend at zero as the runtime does, by integer slopes."""
        scale = float(slope_scale(self.graph.constants[node.inputs[1]])[0])
        integers = operands[1].div(scale).round().reshape(-1, 1, 1)
        source, target = (self.scales[name] for name in (node.inputs[0], node.output))
        return (self.arithmetic.prelu(operands[0], Slopes(integers, scale), source, target),)

    def look_up(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the results that the table of a function holds."""
        source, target = self.scales[node.inputs[0]], self.scales[node.output]
        results = torch.from_numpy(table_of(node, source, target)).to(operands[0].dtype)
        places = operands[0].div(source.scale).round().long() + source.zero_point + 128
        return ((results - target.zero_point)[places] * target.scale,)

    def extreme(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bring two values to the scale of the result, then take the larger or the smaller."""
        target = self.scales[node.output]
        changed = [
            operand
            if self.graph.is_constant(name)
            else self.arithmetic.requantize(operand, self.scales[name], target)
            for name, operand in zip(node.inputs, operands, strict=True)
        ]
        return super().apply(node, [rounded(one, target) for one in changed])

    def requantize(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Change the scale of a value as the runtime does."""
        source, target = self.scales[node.inputs[0]], self.scales[node.output]
        return (self.arithmetic.requantize(operands[0], source, target),)


HANDLERS: Mapping[str, Callable[[Simulator, Node, Sequence[Tensor]], tuple[Tensor, ...]]] = {
    # Sums of integers times their multipliers: see ``_dequantized``.
    **dict.fromkeys(CONVOLUTIONS, Simulator.as_real),
    # Operators that move integers.
    **dict.fromkeys(operators.operators_with(Trait.MOVES) - REFUSED_INT8.keys(), Simulator.as_real),
    # Real functions, rounded.
    **dict.fromkeys(
        ("Relu", "Clip", "Sigmoid", "Mul", "GlobalAveragePool"),
        Simulator.as_real,
    ),
    **dict.fromkeys(FORMULAS, Simulator.look_up),
    "LeakyRelu": Simulator.leaky_relu,
    "PRelu": Simulator.prelu,
    "Add": Simulator.add,
    "Sub": Simulator.subtract,
    **dict.fromkeys(("Max", "Min"), Simulator.extreme),
    # Computed in real numbers by every file, and rounded.
    **dict.fromkeys(("Div", *NORMALIZATIONS), Simulator.as_real),
    "Requantize": Simulator.requantize,
}
"""The outputs of each operator before rounding."""

REFUSED = REFUSED_INT8
"""Operators without an int8 form, and what to do instead."""


def run_int8(graph: Graph, table: ScaleTable, image: Tensor) -> Tensor:
    """Run the int8 form of ``graph`` on N × 3 × H × W pictures in [0, 1] (see ``Simulator``)."""
    with torch.inference_mode():
        restored: Tensor = Simulator(graph, table, image.dtype)(image)
        return restored


def int8_reference(graph: Graph, table: ScaleTable, file: Format) -> Restore:
    """Return a function that restores one H × W × 3 picture as the int8 file of ``graph`` does.

    It computes in float64, because float32 cannot hold all integer sums exactly.
    """
    simulator = Simulator(graph, table, torch.float64, ARITHMETIC.get(file, EXACT))

    def restore(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            image = graph.sides.reflected(picture).transpose(2, 0, 1)[None]
            restored = simulator(torch.from_numpy(image.copy()).double()).float()
            return restored_part(restored, picture, image)

    return restore


def rounded(value: Tensor, quantization: Quantization) -> Tensor:
    """Return the nearest real numbers that 8 bits can hold; ties in float32 go to even quanta."""
    scale, zero_point = quantization.scale, quantization.zero_point
    quanta = value.div(scale).float().round_().clamp_(-128 - zero_point, 127 - zero_point)
    return quanta.to(value.dtype).mul_(scale)


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


def _target(graph: Graph, node: Node, scales: Scales) -> Quantization:
    """Return the quantization of a node's result, which is that of its fused Relu if it has one."""
    return scales[(graph.fused_relu(node) or node).output]


def _dequantized(
    graph: Graph, node: Node, scales: Scales
) -> Mapping[str, NDArray[np.floating[Any]]]:
    """Return the constants of a node as the real numbers that their integers stand for.

    An integer sum of a convolution stands for sum × multiplier × scale of the rounded output.
    """
    if node.op == "PRelu":
        return {node.inputs[1]: rounded_slopes(graph.constants[node.inputs[1]])}
    if node.op in NORMALIZATIONS:
        return {name: graph.constants[name] for name in filter(graph.is_constant, node.inputs)}
    if node.op not in CONVOLUTIONS:
        constants = filter(graph.is_constant, node.inputs)
        return {name: rounded_constant(graph.constants[name]) for name in constants}
    value, weight, bias = node.inputs
    kernel, axis = graph.constants[weight], output_axis(node)
    source, target = scales[value], _target(graph, node, scales)
    multipliers = weight_scales(kernel, axis) * np.float32(source.scale) / np.float32(target.scale)
    worth = multipliers.astype(np.float64) * target.scale
    shape = [-1 if index == axis else 1 for index in range(kernel.ndim)]
    return {
        weight: quantized_weight(kernel, axis) * (worth / source.scale).reshape(shape),
        bias: quantized_bias(graph.constants[bias], kernel, source, axis) * worth,
    }
