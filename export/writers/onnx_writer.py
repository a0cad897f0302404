"""ONNX files: NCHW, opset 18, float32 input and output in every precision.

float16 files hold float16 weights and compute in float16 between two casts. int8 files are in QDQ
form: every activation passes a QuantizeLinear and a DequantizeLinear with the numbers of the table
of scales, and runtimes turn the operators between two pairs into an integer kernel. Activations are
uint8, because ONNX Runtime leaves convolutions of int8 activations in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from export.formulas import FORMULAS, NORMALIZATIONS, Formula
from export.graph import Graph, Node
from export.integers import (
    rounded_slopes,
)
from export.scales import ScaleTable
from export.writers.description import NOTHING_KNOWN, Description, version
from export.writers.normalizations import CHANNELS, PIXELS, normalization
from export.writers.onnx_functions import NATIVE, Tensor, formula_operands
from export.writers.onnx_translator import FLOAT16, FLOAT32, Translator, onnx_type
from export.writers.writing import Written, planar_file, scales_for
from runtime.atomic import replacing
from runtime.formats import Precision


def write_onnx(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
    description: Description = NOTHING_KNOWN,
) -> Written:
    """Write ``graph`` as an ONNX file; equal arguments give equal bytes.

    Args:
        graph: Lowered for its target.
        path: The file, replaced if it exists.
        precision: Precision of weights and arithmetic.
        table: The scales; needed for int8.
        size: Height and width of the input, or None to leave them to the app.
        description: What the file says of the network, in its ``metadata_props``.

    Raises:
        CannotLower: If ONNX, or int8, has no operator for a node of the graph.
        UserError: If int8 is asked for without scales, or the file cannot be written.
    """
    scales = scales_for(graph, path, precision, table, REFUSED)
    dtype = FLOAT16 if precision == "float16" else FLOAT32
    model = _Translator(graph, dtype, scales, size).model()
    model.producer_version = version()
    helper.set_model_props(model, description.facts())
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    found = Counter(node.op_type for node in model.graph.node)
    return planar_file(graph, size, dict(sorted(found.items())))


class _Translator(Translator):
    """Collects the nodes, initializers and types of one file."""

    def translate(self, node: Node) -> None:
        """Add the operators of one node."""
        HANDLERS[node.op](self, node)

    def convolution(self, node: Node) -> None:
        size = self._graph.kernel_shape(node)[-1]
        pads, groups = [size // 2] * 4, node.integer("groups")
        operands = self._kernel_and_bias(node)
        self.emit(node, operands=operands, kernel_shape=[size, size], pads=pads, group=groups)

    def general_convolution(self, node: Node) -> None:
        self.emit(
            node,
            "Conv",
            self._kernel_and_bias(node),
            kernel_shape=self._graph.kernel_shape(node)[2:],
            strides=[node.integer("stride")] * 2,
            dilations=[node.integer("dilation")] * 2,
            pads=_begins_and_ends(node.sides("pads")),
            group=node.integer("groups"),
        )

    def transposed_convolution(self, node: Node) -> None:
        stride, crops = [node.integer("stride")] * 2, node.sides("crops")
        cropped: dict[str, Any] = {"pads": _begins_and_ends(crops)} if any(crops) else {}
        self.emit(
            node,
            operands=self._kernel_and_bias(node),
            kernel_shape=self._graph.kernel_shape(node)[2:],
            strides=stride,
            group=node.integer("groups"),
            **cropped,
        )

    def pad(self, node: Node) -> None:
        above, below, left, right = node.sides("pads")
        sides = np.array([0, 0, above, left, 0, 0, below, right])
        mode = {"zeros": "constant"}.get(node.text("mode"), node.text("mode"))
        operands = [*self.operands(node), self._constant(f"{node.output}/pads", sides)]
        self.emit(node, operands=operands, mode=mode)

    def max_pool(self, node: Node) -> None:
        strides, pads = [node.integer("stride")] * 2, _begins_and_ends(node.sides("pads"))
        self.emit(node, kernel_shape=node.window(), strides=strides, pads=pads)

    def relu(self, node: Node) -> None:
        if self._scales is None:
            self.emit(node)
        else:
            self._round(node, self._scales, relu=True)

    def requantize(self, node: Node) -> None:
        if self._scales is None:
            self.emit(node, "Identity")
        else:
            self._round(node, self._scales)

    def prelu(self, node: Node) -> None:
        slopes = self._graph.constants[node.inputs[1]]
        if self._scales is not None:
            slopes = rounded_slopes(slopes)
        planes = slopes.astype(self._dtype).reshape(-1, 1, 1)
        self.emit(
            node, operands=[self._read[node.inputs[0]], self._constant(node.inputs[1], planes)]
        )

    def clip(self, node: Node) -> None:
        bounds = [
            self._constant(f"{node.output}/{name}", np.array(node.number(name), self._dtype))
            for name in ("minimum", "maximum")
        ]
        self.emit(node, operands=[*self.operands(node), *bounds])

    def function(self, node: Node) -> None:
        """Add a function of one activation: ONNX's own operator, or its formula."""
        (source,) = self.operands(node)
        if (native := NATIVE.get(node.op)) is not None:
            self.emit(node, native.operator, [source], **native.attributes)
            return
        formula, shape = FORMULAS[node.op], self._shape(node.output)
        operands = self._operands_of(node.output, formula, {"x": (source, shape)}, self._dtype)
        self.emit(node, formula.operator, operands)

    def normalization(self, node: Node) -> None:
        """Add a normalization, which is computed in float32."""
        value, result = node.inputs[0], node.output
        source, shape = self._read[value], self._shape(value)
        if self._dtype == FLOAT16:
            source = f"{result}/float32.in"
            self._cast(self._read[value], source, FLOAT32, shape)
        formula, constants = normalization(self._graph, node)
        values = {
            name: (self._constant(f"{result}/norm.{name}", array), array.shape)
            for name, array in constants.items()
        }
        operands = self._operands_of(result, formula, {"x": (source, shape), **values}, FLOAT32)
        if self._dtype == FLOAT16:
            whole = f"{result}/float32.out"
            self._add(formula.operator, operands, {whole: shape}, FLOAT32)
            self.emit(node, "Cast", [whole], to=onnx_type(FLOAT16))
        else:
            self.emit(node, formula.operator, operands)

    def _operands_of(
        self,
        name: str,
        formula: Formula,
        values: Mapping[str, Tensor],
        dtype: np.dtype[Any],
    ) -> list[str]:
        return formula_operands(formula, values, name, dtype, self._add, self._constant)

    def average(self, node: Node) -> None:
        """Add a mean over the picture.

        ONNX Runtime makes an integer kernel of a GlobalAveragePool between roundings, and none of a
        ReduceMean. The kernel refuses a picture where the scale of what it reads is not 2⁻³² to 2⁸
        of that of the sum of its pixels, of which there may be one or 2²⁵.
        """
        ratio = 1.0
        if self._scales is not None:
            ratio = self._scales[node.inputs[0]].scale / self._scales[node.output].scale
        if 2.0**-7 <= ratio < 2.0**8:
            self.emit(node)
        else:
            self.reduced(node, "ReduceMean", PIXELS)

    def reduced(self, node: Node, op: str, axes: Sequence[int]) -> None:
        """Reduce some axes to one value each."""
        over = self._constant(f"{node.output}/axes", np.array(axes))
        self.emit(node, op, [*self.operands(node), over], keepdims=1)

    def split(self, node: Node) -> None:
        sizes = self._constant(f"{node.outputs[0]}/sizes", np.array(node.sizes()))
        self.emit(node, operands=[*self.operands(node), sizes], axis=1)

    def mix(self, node: Node) -> None:
        """Add the product of coefficients and templates; runtimes compute it once, on opening."""
        flat, (kernel,) = f"{node.output}/flat", node.outputs
        extent = self._graph.constants[node.inputs[1]].shape[1]
        self._add("MatMul", self.operands(node), {flat: (extent,)}, self._dtype)
        shape = self._constant(f"{kernel}/shape", np.array(node.shape()))
        self._add("Reshape", [flat, shape], {kernel: node.shape()}, self._dtype)
        self._read[kernel] = kernel


HANDLERS: Mapping[str, Callable[[_Translator, Node], None]] = {
    "Conv": _Translator.convolution,
    "GeneralConv": _Translator.general_convolution,
    "ConvTranspose": _Translator.transposed_convolution,
    "Relu": _Translator.relu,
    "LeakyRelu": lambda file, node: file.emit(node, alpha=node.number("slope")),
    "PRelu": _Translator.prelu,
    "Clip": _Translator.clip,
    "Sigmoid": _Translator.emit,
    **dict.fromkeys(FORMULAS, _Translator.function),
    **dict.fromkeys(NORMALIZATIONS, _Translator.normalization),
    "Add": _Translator.emit,
    "Sub": _Translator.emit,
    "Mul": _Translator.emit,
    "Div": _Translator.emit,
    "Max": _Translator.emit,
    "Min": _Translator.emit,
    "Concat": lambda file, node: file.emit(node, axis=1),
    "Split": _Translator.split,
    "DepthToSpace": lambda file, node: file.emit(
        node, blocksize=node.integer("block"), mode=node.attributes["mode"]
    ),
    "Pad": _Translator.pad,
    "MaxPool": _Translator.max_pool,
    "GlobalAveragePool": _Translator.average,
    "GlobalMaxPool": lambda file, node: file.reduced(node, "ReduceMax", PIXELS),
    "ChannelMax": lambda file, node: file.reduced(node, "ReduceMax", CHANNELS),
    "MixTemplates": _Translator.mix,
    "Requantize": _Translator.requantize,
}
"""Writes a node of each operator."""

REFUSED: Mapping[str, str] = {
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
    "SpaceToDepth": "blocks of pixels are read by convolutions; apply 'convolve_blocks' first",
    "Interpolate": "convolutions interpolate; apply 'interpolate_by_convolutions' first",
}
"""Operators that ONNX files cannot hold, and what to do instead."""


def _begins_and_ends(sides: tuple[int, int, int, int]) -> list[int]:
    """Return pixels above, below, left and right in ONNX's order: top and left first."""
    above, below, left, right = sides
    return [above, left, below, right]
