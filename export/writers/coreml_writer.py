"""Core ML packages: an ML Program for the least system that has its operations.

They take and return arrays, NCHW, in float32 or on request in float16, or images of 8 bits.

The program is built operation by operation with coremltools' MIL builder and without its
optimization passes, so that a package holds exactly the graph. int8 packages carry our scales in
``quantize``, ``dequantize`` and ``constexpr_affine_dequantize`` operations. Between these they
compute in float16, because the Neural Engine has no float32; float16 rounds scales and sums, so
that single values differ from the simulation by up to three quanta. With float32 arithmetic, for
CPU and GPU, they agree.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.formulas import FORMULAS, NORMALIZATIONS
from export.graph import Graph, Node
from export.integers import (
    rounded_slopes,
)
from export.scales import ScaleTable
from export.writers.coreml_functions import function, normalized
from export.writers.coreml_program import Builder, ct, quiet
from export.writers.coreml_windows import Windows
from export.writers.description import AUTHOR, NOTHING_KNOWN, Description, version
from export.writers.normalizations import CHANNELS, PIXELS
from export.writers.writing import Written, planar_file, scales_for
from runtime.atomic import replacing
from runtime.errors import UserError
from runtime.formats import Ports, Precision
from runtime.manifest import TensorInfo
from runtime.sides import Sides

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

_SYSTEMS: Mapping[Any, str] = {
    ct.target.iOS15: "iOS 15, macOS 12",
    ct.target.iOS16: "iOS 16, macOS 13",
    ct.target.iOS17: "iOS 17, macOS 14",
}

_SUFFIX = ".mlpackage"
_IMAGES = "RGB images of 8 bits, for example a CVPixelBuffer; the restored one is clamped"
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
    description: Description = NOTHING_KNOWN,
    ports: Ports = "float32",
) -> Written:
    """Write ``graph`` as a Core ML package; equal arguments give equal bytes.

    Args:
        graph: Lowered for its target.
        path: The package, a folder called ``*.mlpackage``, replaced if it exists.
        precision: Precision of weights and arithmetic.
        table: The scales; needed for int8.
        size: The only height and width the input may have.
        sizes: Without ``size``: the heights and widths it may have, the default first. Where the
            network takes multiples of several pixels, the next such ones.
        flexible: Instead of ``sizes``: the least and the greatest height and width, which become
            the next such multiples within.
        description: What the package says of the network, beside its tensors.
        arithmetic: Type of an int8 package's scales and of its arithmetic between 8-bit values.
        ports: What it takes and returns: float32 or float16 arrays in [0, 1], or images, RGB in 8
            bits, as Vision and CVPixelBuffer have them.

    Raises:
        CannotLower: If Core ML, or int8, has no operation for a node of the graph.
        UserError: If int8 is asked for without scales, float16 ports of a float32 package,
            ``flexible`` is not a range, the name has another suffix or the package cannot be
            written.
    """
    if path.suffix != _SUFFIX:
        raise UserError(f"{path}: a Core ML package must be called *{_SUFFIX}; rename it")
    scales = scales_for(graph, path, precision, table, REFUSED)
    dtype = np.dtype(arithmetic if precision == "int8" else precision)
    if ports == "float16" and dtype != np.float16:
        raise UserError(f"{path.name}: computes in float32; float16 arrays are for float16 files")
    target = _least_target(precision, ports)
    fitting = graph.sides.fitting
    fitted = dict.fromkeys((fitting(height), fitting(width)) for height, width in sizes)
    shape = _input_shape(size, list(fitted), flexible, graph.sides)
    with quiet():
        program = _ProgramWriter(graph, dtype, scales, ports).program(size, target)
        if ports == "image":
            program.functions["main"].set_output_types(_output_types(graph))
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            inputs=_input_types(graph, shape, ports),
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,  # The program holds the casts it needs.
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
    specification = model.get_spec()
    _describe(specification.description, graph, description, ports, _SYSTEMS[target])
    with replacing(path) as temporary:
        _write_package(temporary, specification, Path(model.weights_dir))
    dtype_of_arrays = "float16" if ports == "float16" else "float32"
    written = planar_file(graph, size, _operators(specification), dtype_of_arrays)
    written = dataclasses.replace(written, requires=_SYSTEMS[target])
    return _with_images(written) if ports == "image" else written


def _least_target(precision: Precision, ports: Ports) -> Any:
    """Return the least system whose Core ML has what a package is made of."""
    if precision == "int8":
        return ct.target.iOS17  # quantize, dequantize
    return ct.target.iOS16 if ports == "float16" else ct.target.iOS15


def _with_images(written: Written) -> Written:
    """Return the interface with a picture of bytes, as images are, in place of its arrays."""

    def image(tensor: TensorInfo) -> TensorInfo:
        shape = (1, *tensor.height_and_width, 3)
        return TensorInfo(tensor.name, "NHWC", "uint8", shape, scale=1 / 255, zero_point=0)

    return dataclasses.replace(written, input=image(written.input), output=image(written.output))


def _input_shape(
    size: tuple[int, int] | None,
    sizes: Sequence[tuple[int, int]],
    flexible: tuple[int, int] | None,
    sides: Sides,
) -> Any:
    if size is not None:
        return (1, 3, *size)
    if flexible is None:
        shapes = [(1, 3, *extents) for extents in sizes]
        return ct.EnumeratedShapes(shapes, default=shapes[0])
    minimum, maximum = flexible
    if not 1 <= minimum <= maximum:
        raise UserError(f"flexible={flexible}: expected a least and a greatest size from 1 up")
    least, greatest = sides.fitting(minimum), sides.within(maximum)
    if least > maximum:
        raise UserError(
            f"flexible={flexible}: the network takes multiples of {sides.multiple} pixels from "
            f"{sides.minimum} up; let the greatest be {least} or more"
        )
    default = min(max(sides.fitting(256), least), greatest)
    extents = [ct.RangeDim(least, greatest, default) for _ in range(2)]
    return ct.Shape((1, 3, *extents))


def _input_types(graph: Graph, shape: Any, ports: Ports) -> list[Any]:
    if ports == "image":
        picture = ct.ImageType(graph.input, shape=shape, color_layout=ct.colorlayout.RGB)
    else:
        picture = ct.TensorType(graph.input, shape=shape)
    if graph.pooling is None:
        return [picture]
    pooled = ct.TensorType(graph.pooling.pooled, shape=(1, graph.pooling.channels, 1, 1))
    return [picture, pooled]


def _output_types(graph: Graph) -> list[Any]:
    """Return the types of a program's outputs whose picture is an image."""
    image = ct.ImageType(color_layout=ct.colorlayout.RGB)
    return [image if one == graph.output else ct.TensorType(one) for one in graph.outputs]


def _describe(
    description: Any, graph: Graph, told: Description, ports: Ports, systems: str
) -> None:
    """Set the texts that Xcode shows; drop the date, with which equal packages would differ."""
    metadata = description.metadata
    metadata.author, metadata.versionString = AUTHOR, version()
    metadata.license = told.licence or ""
    metadata.shortDescription = f"Restores a picture at {graph.scale} times its size."
    del metadata.userDefined["com.github.apple.coremltools.conversion_date"]
    metadata.userDefined.update(told.facts())
    metadata.userDefined["requires"] = systems
    picture, caution = "1 × 3 × height × width, RGB in [0, 1]", "; it may overshoot, so clamp it"
    if ports == "image":
        picture, caution = "an image, RGB in 8 bits", ""
        metadata.userDefined["range"] = _IMAGES
    description.input[0].shortDescription = f"The picture: {picture}."
    description.output[0].shortDescription = f"The restored picture: {picture}{caution}."


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


class _ProgramWriter(Windows):
    """Builds the program of one graph."""

    def build(self, node: Node, name: str) -> Any:
        """Build the operation of one node under a name; return its variable, or a list of them."""
        return HANDLERS[node.op](self, node, name)

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

    def function(self, node: Node, name: str) -> Any:
        return function(node.op, self.operand(node), name, self._dtype)

    def normalization(self, node: Node, name: str) -> Any:
        return normalized(self._graph, node, self.operand(node), name, self._dtype)

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

    def requantize(self, node: Node, name: str) -> Any:
        x = self.operand(node)
        return Builder.identity(x=x, name=name) if self._scales is None else x


_Handler = Callable[[_ProgramWriter, Node, str], Any]


def _binary(build: Callable[..., Any]) -> _Handler:
    return lambda program, node, name: build(
        x=program.operand(node), y=program.operand(node, 1), name=name
    )


def _reduced(build: Callable[..., Any], axes: Sequence[int]) -> _Handler:
    return lambda program, node, name: build(
        x=program.operand(node), axes=list(axes), keep_dims=True, name=name
    )


HANDLERS: Mapping[str, _Handler] = {
    "Conv": _ProgramWriter.convolution,
    "GeneralConv": _ProgramWriter.general_convolution,
    "ConvTranspose": _ProgramWriter.transposed_convolution,
    "Relu": lambda program, node, name: Builder.relu(x=program.operand(node), name=name),
    "LeakyRelu": _ProgramWriter.leaky_relu,
    "PRelu": _ProgramWriter.prelu,
    "Clip": _ProgramWriter.clip,
    "Sigmoid": lambda program, node, name: Builder.sigmoid(x=program.operand(node), name=name),
    **dict.fromkeys(FORMULAS, _ProgramWriter.function),
    **dict.fromkeys(NORMALIZATIONS, _ProgramWriter.normalization),
    "Add": _binary(Builder.add),
    "Sub": _binary(Builder.sub),
    "Mul": _binary(Builder.mul),
    "Div": _binary(Builder.real_div),
    "Max": _binary(Builder.maximum),
    "Min": _binary(Builder.minimum),
    "Concat": _ProgramWriter.concat,
    "Split": _ProgramWriter.split,
    "DepthToSpace": _ProgramWriter.depth_to_space,
    "Pad": _ProgramWriter.pad,
    "MaxPool": _ProgramWriter.max_pool,
    "GlobalAveragePool": _reduced(Builder.reduce_mean, PIXELS),
    "GlobalMaxPool": _reduced(Builder.reduce_max, PIXELS),
    "ChannelMax": _reduced(Builder.reduce_max, CHANNELS),
    "Requantize": _ProgramWriter.requantize,
}
"""Builds the operation of a node under a name and returns its variable, or a list of them."""

REFUSED: Mapping[str, str] = {
    "MixTemplates": "Core ML mixes no kernels; apply 'fold_template_bank' first",
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
    "SpaceToDepth": "blocks of pixels are read by convolutions; apply 'convolve_blocks' first",
    "Interpolate": "convolutions interpolate; apply 'interpolate_by_convolutions' first",
}
"""Operators that packages cannot hold, and what to do instead."""
