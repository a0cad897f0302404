"""TFLite operators that read windows of pixels, and those that add or cut off pixels.

TFLite pads windows in one of two ways: not at all (VALID), or so that every stride of pixels gets a
window, the odd pixel behind (SAME).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.errors import CannotLower
from export.graph import Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.sampling import pads_as_usual
from export.writers.tflite_schema import GROUPED_CONV_2D
from export.writers.tflite_translator import Translator

# From the graph's layout to output × k × k × input, TFLite's layout of both kernels.
_KERNEL_ORDER = {
    "Conv": (0, 2, 3, 1),
    "GeneralConv": (0, 2, 3, 1),
    "ConvTranspose": (1, 2, 3, 0),
}


class Windows(Translator):
    """Translates the operators that read windows of pixels."""

    def convolution(self, node: Node) -> None:
        """Convolve with stride 1, keeping the size."""
        options = schema.Conv2DOptionsT(
            padding=schema.Padding.SAME,
            strideW=1,
            strideH=1,
            fusedActivationFunction=self.activation_function(node),
        )
        operands = [self._tensors[node.inputs[0]], *self._kernel_and_bias(node)]
        version = GROUPED_CONV_2D if node.integer("groups") > 1 else None
        self.emit("CONV_2D", node, options, operands, version)

    def general_convolution(self, node: Node) -> None:
        """Convolve with any stride and dilation, and padding that TFLite has."""
        stride, dilation = node.integer("stride"), node.integer("dilation")
        options = schema.Conv2DOptionsT(
            padding=self._padding(node, self._graph.kernel_shape(node)[2:], dilation),
            strideW=stride,
            strideH=stride,
            dilationWFactor=dilation,
            dilationHFactor=dilation,
            fusedActivationFunction=self.activation_function(node),
        )
        operands = [self._tensors[node.inputs[0]], *self._kernel_and_bias(node)]
        version = GROUPED_CONV_2D if node.integer("groups") > 1 else None
        self.emit("CONV_2D", node, options, operands, version)

    def max_pool(self, node: Node) -> None:
        """Return the largest value of each window."""
        stride, (height, width) = node.integer("stride"), node.window()
        options = schema.Pool2DOptionsT(
            padding=self._padding(node, (height, width)),
            strideW=stride,
            strideH=stride,
            filterWidth=width,
            filterHeight=height,
        )
        self.emit("MAX_POOL_2D", node, options)

    def _padding(self, node: Node, window: tuple[int, ...], dilation: int = 1) -> int:
        """Return the padding of TFLite that is that of ``node``.

        Raises:
            CannotLower: If there is none.
        """
        sides, stride = node.sides("pads"), node.integer("stride")
        operand = self._sizes[node.inputs[0]]
        if not pads_as_usual(operand, self._graph.multiple, window, stride, dilation, sides):
            remedy = "; apply 'pad_before_convolutions' first" if node.op == "GeneralConv" else ""
            raise CannotLower(
                f"{node.name}: TFLite has no {node.op} with padding {sides} and stride {stride}"
                f"{remedy}"
            )
        return int(schema.Padding.SAME if any(sides) else schema.Padding.VALID)

    def pad(self, node: Node) -> None:
        """Add pixels at the edges, or cut them off."""
        sides = node.sides("pads")
        cut = [min(side, 0) for side in sides]
        added = [max(side, 0) for side in sides]
        source, target = self._tensors[node.inputs[0]], self._activation(node.output)
        if any(cut) or not any(added):
            between = self._unpadded(node, "cut", added) if any(added) else target
            self._cut(source, between, cut)
            source = between
        if not any(added):
            return
        if node.text("mode") == "zeros":
            operands = [source, self._widths(added)]
            self.file.add_operator("PAD", operands, [target], schema.PadOptionsT())
            return
        # One pixel mirrored with its edge is the edge once more.
        mirrored = schema.MirrorPadMode
        edge = node.text("mode") == "edge"
        options = schema.MirrorPadOptionsT(mirrored.SYMMETRIC if edge else mirrored.REFLECT)
        rounds = range(max(added)) if edge else range(1)
        for one in rounds:
            last = one == len(rounds) - 1
            widths = [int(side > one) for side in added] if edge else added
            missing = [max(side - one - 1, 0) for side in added]
            made = target if last else self._unpadded(node, f"edge.{one}", missing)
            self.file.add_operator("MIRROR_PAD", [source, self._widths(widths)], [made], options)
            source = made

    def _cut(self, source: int, target: int, cut: Sequence[int]) -> None:
        """Add an operator that cuts pixels off, whose numbers are negative."""
        above, below, left, right = cut
        ends = [0, below, right, 0]
        # A bit of a mask lets an axis end where it ends.
        mask = sum(1 << axis for axis, end in enumerate(ends) if end == 0)
        operands = [
            self._constant(f"cut/{name}{values}", np.array(values, np.int32))
            for name, values in (
                ("begin", [0, -above, -left, 0]),
                ("end", ends),
                ("strides", [1, 1, 1, 1]),
            )
        ]
        options = schema.StridedSliceOptionsT(endMask=mask)
        self.file.add_operator("STRIDED_SLICE", [source, *operands], [target], options)

    def _widths(self, added: Sequence[int]) -> int:
        above, below, left, right = added
        widths = np.array([[0, 0], [above, below], [left, right], [0, 0]], np.int32)
        return self._constant(f"widths/{tuple(added)}", widths)

    def _unpadded(self, node: Node, name: str, missing: Sequence[int]) -> int:
        """Add a tensor like the node's output, but for the sides that are missing yet."""
        one, *extents, channels = self._shape(node.output)
        sides = (missing[0] + missing[1], missing[2] + missing[3])
        pairs = zip(extents, sides, strict=True)
        fewer = (None if extent is None else extent - side for extent, side in pairs)
        shape = (one, *fewer, channels)
        if self._scales is None:
            return self.file.add_tensor(f"{node.output}/{name}", np.float32, shape)
        found = self._scales[node.output]
        return self.file.add_tensor(
            f"{node.output}/{name}", np.int8, shape, [found.scale], found.zero_point
        )

    def transposed_convolution(self, node: Node) -> None:
        """Convolve with the kernel of a stride, transposed."""
        if self._size is None:
            raise CannotLower(
                f"{node.name}: transposed convolutions need fixed shapes in TFLite; export with a "
                "height and width (--size) or for a profile without them"
            )
        kernel_size, stride = self._graph.kernel_shape(node)[2:], node.integer("stride")
        if any(node.sides("crops")) or kernel_size != (stride, stride):
            raise CannotLower(
                f"{node.name}: TFLite files hold no transposed convolution whose kernel is not its "
                "stride; apply 'transposed_by_shuffles' first"
            )
        if node.integer("groups") > 1:
            raise CannotLower(
                f"{node.name}: TFLite has no transposed convolution in "
                f"{node.integer('groups')} groups; make it dense"
            )
        extents = np.array(self._shape(node.output), np.int32)
        kernel, bias = self._kernel_and_bias(node)
        self.emit(
            "TRANSPOSE_CONV",
            node,
            schema.TransposeConvOptionsT(schema.Padding.VALID, strideW=stride, strideH=stride),
            [
                self._constant(f"{node.output}/shape", extents),
                kernel,
                self._tensors[node.inputs[0]],
                bias,
            ],
        )

    def _kernel_and_bias(self, node: Node) -> tuple[int, int]:
        value, weight, bias = node.inputs
        kernel, shifts = self._graph.constants[weight], self._graph.constants[bias]
        order = _KERNEL_ORDER[node.op]
        if self._scales is None:
            return self._weights(weight, kernel.transpose(order)), self._weights(bias, shifts)
        axis, source = output_axis(node), self._scales[value]
        integers = quantized_weight(kernel, axis).transpose(order)
        # A bias that convolutions share still has a scale for each of their inputs.
        return (
            self._constant(weight, integers, weight_scales(kernel, axis)),
            self._constant(
                f"{bias}/{node.output}",
                quantized_bias(shifts, kernel, source, axis),
                bias_scales(kernel, source, axis),
            ),
        )
