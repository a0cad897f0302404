"""Core AI operations that read windows of pixels or move pixels.

Its convolutions neither pad nor add a bias: both are operations of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph import Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.writers.coreai_program import ProgramWriter, ca, signed, unsigned

_MODES = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}

_LAST = int(np.iinfo(np.int32).max)
"""Ends are clamped to the extent."""

_SHUFFLES = {"CRD": (0, 1, 4, 2, 5, 3), "DCR": (0, 3, 4, 1, 5, 2)}
"""Orders of the axes of blocks, to N × C × H × block × W × block."""


class Windows(ProgramWriter):
    """Builds the operations that read windows of pixels or move pixels."""

    def convolution(self, node: Node) -> Any:
        """Convolve with stride 1, keeping the size."""
        padding = self._graph.constants[node.inputs[1]].shape[-1] // 2
        return self._convolved(node, (padding,) * 4)

    def general_convolution(self, node: Node) -> Any:
        """Convolve with any stride, dilation and padding."""
        stride, dilation = node.integer("stride"), node.integer("dilation")
        return self._convolved(node, node.sides("pads"), stride, dilation)

    def transposed_convolution(self, node: Node) -> Any:
        """Convolve transposed, and cut the edges off."""
        above, below, left, right = crops = node.sides("crops")
        even = (above, left) == (below, right)
        made = ca.conv_transpose2d(
            self.operand(node),
            self._kernel(node),
            unsigned(*[node.integer("stride")] * 2),
            unsigned(above, left) if even else unsigned(0, 0),
            unsigned(1, 1),
            unsigned(0, 0),
            np.uint32(node.integer("groups")),
        )
        made = made if even else _cut(made, *crops)
        return ca.broadcasting_add(made, self._bias(node))

    def pad(self, node: Node) -> Any:
        """Add pixels at the edges, or cut them off."""
        x, sides = self.operand(node), node.sides("pads")
        if min(sides) < 0:
            x = _cut(x, *(max(-side, 0) for side in sides))
        added = (max(side, 0) for side in sides)
        return _padded(x, *added, value=self.number(0), mode=_MODES[node.text("mode")])

    def max_pool(self, node: Node) -> Any:
        """Return the largest value of each window."""
        x = _padded(self.operand(node), *node.sides("pads"), value=self.number(-np.inf))
        return ca.maxpool2d(
            ca.TensorType(self.shape(node.output), self._dtype),
            x,
            unsigned(*node.window()),
            unsigned(*[node.integer("stride")] * 2),
            unsigned(1, 1),
            np.bool_(False),
        )

    def depth_to_space(self, node: Node) -> Any:
        """Rearrange channels to blocks of pixels."""
        x, block, mode = self.operand(node), node.integer("block"), node.text("mode")
        channels = self.shape(node.output)[1]
        heights, widths = self._extents(x, node.inputs[0])
        depths = (channels, block, block) if mode == "CRD" else (block, block, channels)
        blocks = ca.reshape(x, _joined(unsigned(1, *depths), heights, widths))
        ordered = ca.transpose(blocks, unsigned(*_SHUFFLES[mode]))
        enlarged = (_times(one, block) for one in (heights, widths))
        return ca.reshape(ordered, _joined(unsigned(1, channels), *enlarged))

    def _extents(self, x: Any, name: str) -> list[Any]:
        """Return height and width of an activation, as arrays if they are known beforehand."""
        if self._size is not None:
            return [unsigned(extent) for extent in self.shape(name)[2:]]
        shape = ca.get_shape(x)
        return [ca.slice_(shape, signed(axis), signed(axis + 1), signed(1)) for axis in (2, 3)]

    def _convolved(
        self, node: Node, pads: tuple[int, int, int, int], stride: int = 1, dilation: int = 1
    ) -> Any:
        made = ca.conv2d(
            _padded(self.operand(node), *pads, value=self.number(0)),
            self._kernel(node),
            unsigned(stride, stride),
            unsigned(dilation, dilation),
            np.uint32(node.integer("groups")),
        )
        return ca.broadcasting_add(made, self._bias(node))

    def _kernel(self, node: Node) -> Any:
        weight, axis = node.inputs[1], output_axis(node)
        if self._scales is None:
            return self._value(weight)
        if weight not in self._kernels:
            kernel = self._graph.constants[weight]
            scales = weight_scales(kernel, axis).astype(self._dtype)
            self._kernels[weight] = ca.dequantize(
                self._constant(weight, quantized_weight(kernel, axis)),
                self._constant(f"{weight}/scales", scales),
                self._constant(f"{weight}/zeros", np.zeros(scales.shape, np.int8)),
                self._constant(f"{weight}/shifts", np.zeros_like(scales)),
                np.int32(axis),
            )
        return self._kernels[weight]

    def _bias(self, node: Node) -> Any:
        value, weight, bias = node.inputs
        real: NDArray[np.floating[Any]] = self._graph.constants[bias]
        if self._scales is not None:
            # Of the integers that other formats store, for which Core AI has no type here.
            kernel, axis = self._graph.constants[weight], output_axis(node)
            source = self._scales[value]
            integers = quantized_bias(self._graph.constants[bias], kernel, source, axis)
            real = integers * bias_scales(kernel, source, axis)
        plane = real.astype(self._dtype).reshape(1, -1, 1, 1)
        return self._constant(f"{node.output}/bias", plane)


def _padded(
    x: Any, above: int, below: int, left: int, right: int, *, value: Any, mode: str = "constant"
) -> Any:
    sides = (above, below, left, right)
    return ca.pad(x, unsigned(0, 0, 0, 0, *sides), value, mode) if any(sides) else x


def _cut(x: Any, above: int, below: int, left: int, right: int) -> Any:
    ends = (-below or _LAST, -right or _LAST)
    return ca.slice_(x, signed(0, 0, above, left), signed(_LAST, _LAST, *ends), signed(1, 1, 1, 1))


def _joined(*parts: Any) -> Any:
    """Return one shape of its parts."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return ca.concat(np.int32(0), list(parts))


def _times(extent: Any, factor: int) -> Any:
    product = extent * unsigned(factor) if isinstance(extent, np.ndarray) else None
    return ca.mul(extent, unsigned(factor)) if product is None else product
