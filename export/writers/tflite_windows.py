"""TFLite operators that read windows of pixels or move pixels: convolutions."""

from __future__ import annotations

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
from export.writers.tflite_schema import GROUPED_CONV_2D
from export.writers.tflite_translator import Translator

# From the graph's layout to output × k × k × input, TFLite's layout of both kernels.
_KERNEL_ORDER = {"Conv": (0, 2, 3, 1), "ConvTranspose": (1, 2, 3, 0)}


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

    def transposed_convolution(self, node: Node) -> None:
        """Convolve with the kernel of a stride, transposed."""
        if self._size is None:
            raise CannotLower(
                f"{node.name}: transposed convolutions need fixed shapes in TFLite; export with a "
                "height and width (--size) or for a profile without them"
            )
        if node.integer("groups") > 1:
            raise CannotLower(
                f"{node.name}: TFLite has no transposed convolution in "
                f"{node.integer('groups')} groups; make it dense"
            )
        extents = np.array(self._shape(node.output), np.int32)
        kernel, bias = self._kernel_and_bias(node)
        stride = node.integer("stride")
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
