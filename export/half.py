"""True half arithmetic, as GPUs and NPUs run float16 files.

Runtimes for CPUs widen float16 to float32 and cannot show what happens there. Here weights and
activations are rounded to float16 and, where sums are in float16, so are every product and every
partial sum of a convolution. Devices add in an order of their own; here a convolution adds input
channel after input channel, of each the kernel row by row, and the bias last, which loses more than
an order that adds partial sums pairwise. Other operators compute in float32 and round their result:
a mean over the picture added up in float16 would lose its value on any large picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from export.execution import HANDLERS, Interpreter, tensors_of
from export.graph import Graph, Node

LARGEST_HALF = 65504.0
"""The largest number of float16."""

Sums = Literal["float16", "float32"]
"""The type of partial sums; results are rounded to float16 in either case."""


class HalfInterpreter(Interpreter):
    """Runs a graph in half arithmetic; tensors are float32 and hold float16 numbers.

    Args:
        graph: Any graph, its constants in float32.
        sums: The type of partial sums.

    Attributes:
        largest_sums: The largest magnitude of a partial sum, looked at after each input channel or
            by the activation that the sums make; of all runs. Where float16 overflows it is
            what the sum reaches in float32.
    """

    def __init__(self, graph: Graph, sums: Sums = "float16") -> None:
        super().__init__(graph, {name: halved(one) for name, one in tensors_of(graph).items()})
        self._sums = sums
        self.largest_sums: dict[str, float] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        """Return the activation in float16."""
        return halved(value)

    def before_relu(self, name: str, value: Tensor) -> Tensor:
        """Return the activation in float16."""
        return halved(value)

    def apply(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of a node."""
        if self._sums == "float32" or node.op not in SUMS:
            return super().apply(node, operands)
        total, largest = SUMS[node.op](node, operands, torch.float16)
        if not largest <= LARGEST_HALF:  # NaN after an overflow
            _, largest = SUMS[node.op](node, operands, torch.float32)
        known = self.largest_sums.get(node.output, 0.0)
        self.largest_sums[node.output] = max(known, largest)
        return (total.float(),)


def halved(value: Tensor) -> Tensor:
    """Return a float32 tensor rounded to float16, in float32; what is too large is infinite."""
    return value.half().float()


def _convolution(
    node: Node, operands: Sequence[Tensor], dtype: torch.dtype
) -> tuple[Tensor, float]:
    value, kernel, bias = operands
    groups, taps = node.integer("groups"), kernel[0, 0].numel()
    transposed = node.op == "ConvTranspose"
    # Groups × outputs × channels × taps.
    weights = kernel.reshape(groups, -1, kernel.shape[1], taps)
    weights = (weights.transpose(1, 2) if transposed else weights).to(dtype)
    count, channels, height, width = value.shape
    by_channel = value.reshape(count, groups, channels // groups, height, width)
    # What a tap is multiplied by is what the operator itself makes of a kernel that is one there.
    single = dataclasses.replace(node, attributes={**node.attributes, "groups": 1})
    one_tap = torch.eye(taps).reshape(taps, *kernel.shape[2:])
    operand = one_tap[None] if transposed else one_tap[:, None]
    total, largest = torch.zeros(count, groups, weights.shape[1], 1, 1, dtype=dtype), 0.0
    for channel in range(channels // groups):
        plane = by_channel[:, :, channel].reshape(-1, 1, height, width)
        (shifted,) = HANDLERS[node.op](single, [plane, operand, torch.zeros(taps)])
        seen = shifted.to(dtype).reshape(count, groups, 1, taps, *shifted.shape[2:])
        for tap in range(taps):
            weight = weights[:, :, channel, tap, None, None]
            # Zeros that a rewrite put into a kernel add nothing; the first term gives the shape.
            if weight.any() or total.shape[-2:] != shifted.shape[-2:]:
                total = total + weight * seen[:, :, :, tap]
        largest = _larger(largest, total)
    total = total + bias.to(dtype).reshape(groups, -1, 1, 1)
    return total.flatten(1, 2), _larger(largest, total)


def _larger(largest: float, values: Tensor) -> float:
    """Return the larger of a number and the largest magnitude; NaN if either is."""
    low, high = torch.aminmax(values)
    return float(torch.stack([torch.tensor(largest), high.float(), -low.float()]).max())


SUMS: Mapping[str, Callable[[Node, Sequence[Tensor], torch.dtype], tuple[Tensor, float]]] = {
    "Conv": _convolution,
    "GeneralConv": _convolution,
    "ConvTranspose": _convolution,
}
"""Operators that add many products: the output and the largest partial sum, with all
products and sums in a type."""
