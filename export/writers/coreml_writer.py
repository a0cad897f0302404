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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.errors import CannotLower
from export.graph import Graph, Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.scales import ScaleTable
from export.writers.writing import Written, planar_pooling, planar_tensor
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
        UserError: If int8 is asked for without scales, ``flexible`` is no range, the name has
            another suffix or the package cannot be written.
    """
    if path.suffix != _SUFFIX:
        raise UserError(f"{path}: a Core ML package must be called *{_SUFFIX}; rename it")
    if precision != "int8":
        table = None
    elif table is None:
        raise UserError(f"{path.name}: int8 needs a table of scales; run 'reslite quantize' first")
    dtype = np.dtype(arithmetic if precision == "int8" else precision)
    shape = _input_shape(size, sizes, flexible)
    with _quiet():
        model = ct.convert(
            _ProgramWriter(graph, dtype, table).program(size),
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
    enlarged = (size[0] * graph.scale, size[1] * graph.scale) if size else None
    return Written(
        input=planar_tensor(graph, graph.input, size),
        output=planar_tensor(graph, graph.output, enlarged),
        pooling=planar_pooling(graph, size),
        operators=_operators(specification),
    )


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
    """Write the package's files; coremltools itself would put random identifiers in them."""
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

    def __init__(self, graph: Graph, dtype: np.dtype[Any], table: ScaleTable | None) -> None:
        self._graph, self._dtype, self._table = graph, dtype, table
        self._casts = dtype == np.float16
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
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
        if node.op in {"Conv", "ConvTranspose"}:
            return self._convolution(node, name)
        operands = [self._operand(value) for value in node.inputs]
        x = operands[0]
        match node.op:
            case "Relu":
                return Builder.relu(x=x, name=name)
            case "LeakyRelu":
                return Builder.leaky_relu(x=x, alpha=self._number(node, "slope"), name=name)
            case "Clip":
                low, high = self._number(node, "minimum"), self._number(node, "maximum")
                return Builder.clip(x=x, alpha=low, beta=high, name=name)
            case "Sigmoid":
                return Builder.sigmoid(x=x, name=name)
            case "Add":
                return Builder.add(x=x, y=operands[1], name=name)
            case "Sub":
                return Builder.sub(x=x, y=operands[1], name=name)
            case "Mul":
                return Builder.mul(x=x, y=operands[1], name=name)
            case "Concat":
                return Builder.concat(values=operands, axis=1, name=name)
            case "Split":
                return Builder.split(x=x, split_sizes=list(node.sizes()), axis=1, name=name)
            case "DepthToSpace" if node.attributes["mode"] == "CRD":
                return Builder.pixel_shuffle(x=x, upscale_factor=node.integer("block"), name=name)
            case "DepthToSpace":  # Core ML's has TensorFlow's order of channels, DCR.
                return Builder.depth_to_space(x=x, block_size=node.integer("block"), name=name)
            case "GlobalAveragePool":
                return Builder.reduce_mean(x=x, axes=[2, 3], keep_dims=True, name=name)
            case "Requantize":
                return Builder.identity(x=x, name=name) if self._table is None else x
            case "MixTemplates":
                raise CannotLower(f"{node.name}: Core ML mixes no kernels; 'fold_template_bank'")
        raise AssertionError(f"{node.op} is in OPERATORS but cannot be written")

    def _convolution(self, node: Node, name: str) -> Any:
        value, weight, _ = node.inputs
        operands = {
            "x": self._read[value],
            "weight": self._kernel(node),
            "bias": self._bias(node),
            "groups": node.integer("groups"),
            "name": name,
        }
        if node.op == "ConvTranspose":
            return Builder.conv_transpose(strides=[node.integer("stride")] * 2, **operands)
        padding = self._graph.constants[weight].shape[-1] // 2
        return Builder.conv(pad_type="custom", pad=[padding] * 4, **operands)

    def _kernel(self, node: Node) -> Any:
        weight, axis = node.inputs[1], output_axis(node)
        if self._table is None:
            return self._operand(weight)
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
        if self._table is None:
            return self._operand(bias)
        # ML Programs have no int32 constants behind a scale: the bias is what its integers mean.
        kernel, axis, source = (
            self._graph.constants[weight],
            output_axis(node),
            self._table.of(self._graph.origin(value)),
        )
        integers = quantized_bias(self._graph.constants[bias], kernel, source, axis)
        real = integers * bias_scales(kernel, source, axis)
        return self._constant(f"{node.output}/bias", real.astype(self._dtype))

    def _operand(self, value: str) -> Any:
        if not self._graph.is_constant(value):
            return self._read[value]
        return self._constant(value, self._graph.constants[value].astype(self._dtype))

    def _rounded(self, value: str, variable: Any) -> Any:
        """Return ``variable`` rounded to the 8 bits of ``value``, in an int8 program."""
        if self._table is None:
            return variable
        quantization = self._table.of(self._graph.origin(value))
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

    def _constant(self, name: str, array: NDArray[Any]) -> Any:
        """Return a constant that holds ``array``; equal arrays are stored once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = Builder.const(val=array, name=name)
        return self._constants[key]
