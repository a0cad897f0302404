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

    def general_convolution(self, node: Node, name: str) -> Any:
        """Convolve with any stride, dilation and padding."""
        return Builder.conv(
            pad_type="custom",
            pad=list(node.sides("pads")),
            strides=[node.integer("stride")] * 2,
            dilations=[node.integer("dilation")] * 2,
            name=name,
            **self._kernel_and_bias(node),
        )

    def transposed_convolution(self, node: Node, name: str) -> Any:
        """Convolve transposed, and cut the edges off."""
        strides, crops = [node.integer("stride")] * 2, node.sides("crops")
        cropped = {"pad_type": "custom", "pad": list(crops)} if any(crops) else {}
        operands = self._kernel_and_bias(node)
        return Builder.conv_transpose(strides=strides, name=name, **cropped, **operands)

    def pad(self, node: Node, name: str) -> Any:
        """Add pixels at the edges, or cut them off."""
        x, sides = self.operand(node), node.sides("pads")
        kept = [min(side, 0) for side in sides]
        if any(kept):
            # An end of 0 would leave nothing; the mask lets it be the last pixel.
            ends = [0, 0, kept[1], kept[3]]
            x = Builder.slice_by_index(
                x=x,
                begin=[0, 0, -kept[0], -kept[2]],
                end=ends,
                end_mask=[end == 0 for end in ends],
                name=f"{name}/cut" if max(sides) > 0 else name,
            )
        if max(sides) <= 0:
            return x if any(kept) else Builder.identity(x=x, name=name)
        mode = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}[node.text("mode")]
        added = [max(side, 0) for side in sides]
        zero = self._dtype.type(0)  # The type must be that of x, whatever the mode.
        return Builder.pad(x=x, pad=[0, 0, 0, 0, *added], mode=mode, constant_val=zero, name=name)

    def max_pool(self, node: Node, name: str) -> Any:
        """Return the largest value of each window."""
        return Builder.max_pool(
            x=self.operand(node),
            kernel_sizes=list(node.window()),
            strides=[node.integer("stride")] * 2,
            pad_type="custom",
            pad=list(node.sides("pads")),
            name=name,
        )

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
