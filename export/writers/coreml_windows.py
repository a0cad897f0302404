"""Core ML operations that read windows of pixels or move pixels: convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.graph import Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.writers.coreml_program import Builder, ProgramWriter


class Windows(ProgramWriter):
    """Builds the operations that read windows of pixels."""

    def convolution(self, node: Node, name: str) -> Any:
        """Convolve with stride 1, keeping the size."""
        padding = self._graph.constants[node.inputs[1]].shape[-1] // 2
        operands = self._kernel_and_bias(node)
        return Builder.conv(pad_type="custom", pad=[padding] * 4, name=name, **operands)

    def transposed_convolution(self, node: Node, name: str) -> Any:
        """Convolve with the kernel of a stride, transposed."""
        strides = [node.integer("stride")] * 2
        return Builder.conv_transpose(strides=strides, name=name, **self._kernel_and_bias(node))

    def _kernel_and_bias(self, node: Node) -> dict[str, Any]:
        """Return the operands that Conv and ConvTranspose have in common."""
        return {
            "x": self.operand(node),
            "weight": self._kernel(node),
            "bias": self._bias(node),
            "groups": node.integer("groups"),
        }

    def _kernel(self, node: Node) -> Any:
        weight, axis = node.inputs[1], output_axis(node)
        if self._scales is None:
            return self._variable(weight)
        if weight not in self._kernels:
            kernel = self._graph.constants[weight]
            scales = weight_scales(kernel, axis)
            self._kernels[weight] = Builder.constexpr_affine_dequantize(
                quantized_data=quantized_weight(kernel, axis),
                scale=scales.astype(self._dtype),
                zero_point=np.zeros(scales.shape, np.int8),
                axis=axis,
                name=weight,
            )
        return self._kernels[weight]

    def _bias(self, node: Node) -> Any:
        value, weight, bias = node.inputs
        if self._scales is None:
            return self._variable(bias)
        # ML Programs have no quantized int32 constants: the bias is stored as real numbers.
        kernel, axis = self._graph.constants[weight], output_axis(node)
        source = self._scales[value]
        integers = quantized_bias(self._graph.constants[bias], kernel, source, axis)
        real = integers * bias_scales(kernel, source, axis)
        return self._constant(f"{node.output}/bias", real.astype(self._dtype))
