"""Core ML packages: an ML Program (iOS 17, macOS 14), NCHW, float32 input and output.

The program is built operation by operation with coremltools' MIL builder and without its
optimization passes, so that a package holds exactly the graph. int8 packages carry our scales in
``quantize``, ``dequantize`` and ``constexpr_affine_dequantize`` operations. Between these they
compute in float16, because the Neural Engine has no float32; float16 rounds scales and sums, so
that single values differ from the simulation by up to three quanta. With float32 arithmetic, for
CPU and GPU, they agree.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.graph import Graph, Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    rounded_constant,
    rounded_slopes,
    weight_scales,
)
from export.scales import ScaleTable
from export.writers.writing import Constants, Scales, Written, planar_file, scales_for
from runtime.atomic import replacing
from runtime.errors import UserError
from runtime.formats import Precision
from runtime.hidden_tensorflow import without_tensorflow


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence coremltools' progress bars and its advice about versions of other packages."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


with _quiet(), without_tensorflow():
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

DEFAULT_SIZES: tuple[tuple[int, int], ...] = (
    (180, 320),
    (320, 180),
    (270, 480),
    (480, 270),
    (64, 64),
    (128, 128),
    (256, 256),
)
"""Heights and widths a package takes unless told otherwise, the default first.

Video frames in both orientations, and square tiles. Core ML prepares the Neural Engine for
enumerated sizes; with a range it usually falls back to the GPU or the CPU.
"""

Arithmetic = Literal["float16", "float32"]

_SUFFIX = ".mlpackage"
_AUTHOR = "com.apple.CoreML"


def write_coreml(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
    sizes: Sequence[tuple[int, int]] = DEFAULT_SIZES,
    flexible: tuple[int, int] | None = None,
    arithmetic: Arithmetic = "float16",
) -> Written:
    """Write ``graph`` as a Core ML package; equal arguments give equal bytes.

    Args:
        graph: Lowered for its target.
        path: The package, a folder called ``*.mlpackage``, replaced if it exists.
        precision: Precision of weights and arithmetic.
        table: The scales; needed for int8.
        size: The only height and width the input may have.
        sizes: Without ``size``: the heights and widths it may have, the default first.
        flexible: Instead of ``sizes``: the least and the greatest height and width.
        arithmetic: Type of an int8 package's scales and of its arithmetic between 8-bit values.

    Raises:
        CannotLower: If Core ML, or int8, has no operation for a node of the graph.
        UserError: If int8 is asked for without scales, ``flexible`` is not a range, the name has
            another suffix or the package cannot be written.
    """
    if path.suffix != _SUFFIX:
        raise UserError(f"{path}: a Core ML package must be called *{_SUFFIX}; rename it")
    scales = scales_for(graph, path, precision, table, REFUSED)
    dtype = np.dtype(arithmetic if precision == "int8" else precision)
    shape = _input_shape(size, sizes, flexible)
    with _quiet():
        model = ct.convert(
            _ProgramWriter(graph, dtype, scales).program(size),
            source="milinternal",
            convert_to="mlprogram",
            inputs=[ct.TensorType(graph.input, shape=shape), *_pooled_inputs(graph)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,  # The program holds the casts it needs.
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
    specification = model.get_spec()
    _describe(specification.description, graph)
    with replacing(path) as temporary:
        _write_package(temporary, specification, Path(model.weights_dir))
    return planar_file(graph, size, _operators(specification))


def _input_shape(
    size: tuple[int, int] | None,
    sizes: Sequence[tuple[int, int]],
    flexible: tuple[int, int] | None,
) -> Any:
    if size is not None:
        return (1, 3, *size)
    if flexible is None:
        shapes = [(1, 3, *extents) for extents in sizes]
        return ct.EnumeratedShapes(shapes, default=shapes[0])
    minimum, maximum = flexible
    if not 1 <= minimum <= maximum:
        raise UserError(f"flexible={flexible}: expected a least and a greatest size from 1 up")
    default = min(max(256, minimum), maximum)
    extents = [ct.RangeDim(minimum, maximum, default) for _ in range(2)]
    return ct.Shape((1, 3, *extents))


def _pooled_inputs(graph: Graph) -> list[Any]:
    if graph.pooling is None:
        return []
    return [ct.TensorType(graph.pooling.pooled, shape=(1, graph.pooling.channels, 1, 1))]


def _describe(description: Any, graph: Graph) -> None:
    """Set the texts that Xcode shows; drop the date, with which equal packages would differ."""
    metadata = description.metadata
    metadata.author = "reslite"
    metadata.shortDescription = f"Restores a picture at {graph.scale} times its size."
    del metadata.userDefined["com.github.apple.coremltools.conversion_date"]
    picture = "1 × 3 × height × width, RGB in [0, 1]"
    description.input[0].shortDescription = f"The picture: {picture}."
    description.output[
        0
    ].shortDescription = f"The restored picture: {picture}; it may overshoot, so clamp it."


def _write_package(folder: Path, specification: Any, weights: Path) -> None:
    """Write the package's files with fixed identifiers; those of coremltools are random."""
    data = folder / "Data" / _AUTHOR
    data.mkdir(parents=True)
    (data / "model.mlmodel").write_bytes(specification.SerializeToString(deterministic=True))
    (data / "weights").mkdir()
    for file in weights.glob("*"):  # None, if all constants are so small that the model holds them.
        shutil.copyfile(file, data / "weights" / file.name)
    items = {}
    for name, description in (("model.mlmodel", "Specification"), ("weights", "Weights")):
        item = f"{_AUTHOR}/{name}"
        items[str(uuid.uuid5(uuid.NAMESPACE_URL, item))] = {
            "author": _AUTHOR,
            "description": f"CoreML Model {description}",
            "name": name,
            "path": item,
        }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": items,
        "rootModelIdentifier": next(iter(items)),
    }
    (folder / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")


def _operators(specification: Any) -> dict[str, int]:
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    found = Counter(operation.type for operation in block.operations if operation.type != "const")
    return dict(sorted(found.items()))


class _ProgramWriter:
    """Builds the program. ``_read`` holds the variable that later nodes read for each value."""

    def __init__(self, graph: Graph, dtype: np.dtype[Any], scales: Scales | None) -> None:
        self._graph, self._dtype, self._scales = graph, dtype, scales
        self._casts = dtype == np.float16
        self._constant = Constants(lambda name, array: Builder.const(val=array, name=name)).of
        self._kernels: dict[str, Any] = {}
        self._read: dict[str, Any] = {}

    def program(self, size: tuple[int, int] | None) -> Any:
        """Translate the whole graph, for one input size or for any."""
        extents = size or (get_new_symbol(), get_new_symbol())
        shapes = {self._graph.input: (1, 3, *extents)}
        if (pooling := self._graph.pooling) is not None:
            shapes[pooling.pooled] = (1, pooling.channels, 1, 1)
        specs = {
            name: Builder.TensorSpec(shape=shape, dtype=types.fp32)
            for name, shape in shapes.items()
        }
        with Function(specs, ct.target.iOS17) as function:
            function.set_outputs(self._body(function.inputs))
        program = Program()
        program.add_function("main", function)
        return program

    def _body(self, inputs: Mapping[str, Any]) -> list[Any]:
        graph = self._graph
        for value in graph.inputs:
            given = inputs[value]
            if self._casts:
                given = Builder.cast(x=given, dtype="fp16", name=f"{value}/float16")
            self._read[value] = self._rounded(value, given)
        for node in graph.nodes:
            made = self._translate(node)
            variables = made if isinstance(made, (list, tuple)) else [made]
            # Where a Relu follows at once, only the Relu's result is rounded.
            rounds = graph.fused_relu(node) is None
            for value, variable in zip(node.outputs, variables, strict=True):
                self._read[value] = self._rounded(value, variable) if rounds else variable
        return [self._handed_out(value) for value in graph.outputs]

    def _handed_out(self, value: str) -> Any:
        """Return the variable that leaves the program under the name of ``value``."""
        variable = self._read[value]
        return Builder.cast(x=variable, dtype="fp32", name=value) if self._casts else variable

    def _translate(self, node: Node) -> Any:
        """Return the variable that stands for the node's output, or a list of them."""
        name = node.outputs[0]
        if self._casts and name in self._graph.outputs:
            name = f"{name}/float16"  # The cast behind it bears the output's name.
        return HANDLERS[node.op](self, node, name)

    def operand(self, node: Node, index: int = 0) -> Any:
        """Return the variable of one of the node's inputs."""
        return self._variable(node.inputs[index])

    def convolution(self, node: Node, name: str) -> Any:
        padding = self._graph.constants[node.inputs[1]].shape[-1] // 2
        operands = self._kernel_and_bias(node)
        return Builder.conv(pad_type="custom", pad=[padding] * 4, name=name, **operands)

    def transposed_convolution(self, node: Node, name: str) -> Any:
        strides = [node.integer("stride")] * 2
        return Builder.conv_transpose(strides=strides, name=name, **self._kernel_and_bias(node))

    def leaky_relu(self, node: Node, name: str) -> Any:
        return Builder.leaky_relu(
            x=self.operand(node), alpha=self._number(node, "slope"), name=name
        )

    def prelu(self, node: Node, name: str) -> Any:
        slopes = self._graph.constants[node.inputs[1]]
        if self._scales is not None:
            slopes = rounded_slopes(slopes)
        alpha = self._constant(node.inputs[1], slopes.astype(self._dtype))
        return Builder.prelu(x=self.operand(node), alpha=alpha, name=name)

    def clip(self, node: Node, name: str) -> Any:
        low, high = self._number(node, "minimum"), self._number(node, "maximum")
        return Builder.clip(x=self.operand(node), alpha=low, beta=high, name=name)

    def concat(self, node: Node, name: str) -> Any:
        return Builder.concat(values=[*map(self._variable, node.inputs)], axis=1, name=name)

    def split(self, node: Node, name: str) -> Any:
        sizes = list(node.sizes())
        return Builder.split(x=self.operand(node), split_sizes=sizes, axis=1, name=name)

    def depth_to_space(self, node: Node, name: str) -> Any:
        x, block = self.operand(node), node.integer("block")
        if node.attributes["mode"] == "CRD":
            return Builder.pixel_shuffle(x=x, upscale_factor=block, name=name)
        # Core ML's own has TensorFlow's order of channels, DCR.
        return Builder.depth_to_space(x=x, block_size=block, name=name)

    def average(self, node: Node, name: str) -> Any:
        return Builder.reduce_mean(x=self.operand(node), axes=[2, 3], keep_dims=True, name=name)

    def requantize(self, node: Node, name: str) -> Any:
        x = self.operand(node)
        return Builder.identity(x=x, name=name) if self._scales is None else x

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

    def _variable(self, value: str) -> Any:
        if not self._graph.is_constant(value):
            return self._read[value]
        array = self._graph.constants[value]
        if self._scales is not None:
            array = rounded_constant(array)
        return self._constant(value, array.astype(self._dtype))

    def _rounded(self, value: str, variable: Any) -> Any:
        """Return ``variable`` rounded to the 8 bits of ``value``, in an int8 program."""
        if self._scales is None:
            return variable
        quantization = self._scales[value]
        zero = np.array(quantization.zero_point + 128, np.uint8)
        parameters = {
            "scale": self._constant(f"{value}/scale", np.array(quantization.scale, self._dtype)),
            # Core ML is faster without a zero point; outputs of ReLU do not need one.
            "zero_point": self._constant(f"{value}/zero", zero) if zero else None,
        }
        integers = Builder.quantize(
            input=variable, output_dtype="uint8", name=f"{value}/uint8", **parameters
        )
        return Builder.dequantize(input=integers, name=f"{value}/rounded", **parameters)

    def _number(self, node: Node, attribute: str) -> np.floating[Any]:
        number: np.floating[Any] = self._dtype.type(node.number(attribute))
        return number


_Handler = Callable[[_ProgramWriter, Node, str], Any]


def _binary(build: Callable[..., Any]) -> _Handler:
    return lambda program, node, name: build(
        x=program.operand(node), y=program.operand(node, 1), name=name
    )


HANDLERS: Mapping[str, _Handler] = {
    "Conv": _ProgramWriter.convolution,
    "ConvTranspose": _ProgramWriter.transposed_convolution,
    "Relu": lambda program, node, name: Builder.relu(x=program.operand(node), name=name),
    "LeakyRelu": _ProgramWriter.leaky_relu,
    "PRelu": _ProgramWriter.prelu,
    "Clip": _ProgramWriter.clip,
    "Sigmoid": lambda program, node, name: Builder.sigmoid(x=program.operand(node), name=name),
    "Add": _binary(Builder.add),
    "Sub": _binary(Builder.sub),
    "Mul": _binary(Builder.mul),
    "Concat": _ProgramWriter.concat,
    "Split": _ProgramWriter.split,
    "DepthToSpace": _ProgramWriter.depth_to_space,
    "GlobalAveragePool": _ProgramWriter.average,
    "Requantize": _ProgramWriter.requantize,
}
"""Builds the operation of a node under a name and returns its variable, or a list of them."""

REFUSED: Mapping[str, str] = {
    "MixTemplates": "Core ML mixes no kernels; apply 'fold_template_bank' first",
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
}
"""Operators that packages cannot hold, and what to do instead."""
