"""ONNX files of others, of one network that turns a picture into a picture.

What a file says is read into the graph by ``export.capture``; then ONNX Runtime runs the file as it
is, and the graph must restore the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import external_data_helper, helper

from export.capture.onnx_reading import read_model
from export.capture.preparation import prepare
from export.errors import CannotLower
from export.graph import Graph
from export.graph_module import GraphModule
from export.sources.foreign import Foreign, plain_name
from export.sources.onnx_trial import HALF, SINGLE, Ends, proven
from runtime.errors import UserError, first_line
from runtime.manifest import sha256_of

SUFFIX = ".onnx"

_LARGEST = 2**30
"""Bytes. Files of mobile networks are a hundredth of this."""

_OLDEST = 13
_READ_AS = 18
"""Version of ONNX's operators that older ones are converted to; later ones are read as they are."""

_PLAIN = (192, 288)
"""Height and width that a file of any size is read at: multiples of 96, of which a network that
halves pictures needs no rest."""

_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"}
)


def read_onnx(path: Path) -> Foreign:
    """Read a network from an ONNX file that reslite did not write.

    Raises:
        UserError: If the file is missing, damaged, too large or already quantized, if its external
            data are missing, or if it is no network from one picture in [0, 1] to another, RGB or
            luma.
        CannotLower: If it holds operators outside the vocabulary; lists all.
    """
    model, data = _loaded(path)
    _check_operators(path, model)
    ends = _ends(path, model)
    graph = _read(path, model, ends)
    graph = proven(path, model, ends, graph, HALF if _in_half(model) else SINGLE)
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    known: dict[str, Any] = {"producer": producer, "opset": _opset(model)}
    if data:
        known["external_data"] = [one.name for one in data]
    return Foreign(
        name=plain_name(path.stem, graph.scale),
        path=path,
        sha256=_sha256_of([path, *data]),
        architecture=f"ONNX file of {model.producer_name or 'an unknown program'}",
        known=known,
        modules={graph.scale: GraphModule(graph).eval()},
        colours=ends.colours,
    )


def is_of_others(path: Path) -> bool:
    """Tell whether a file is an ONNX file that another program than reslite wrote."""
    if path.suffix.lower() != SUFFIX or not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    try:
        producer = onnx.load(path, load_external_data=False).producer_name
    except DecodeError:
        return False
    return bool(producer != "reslite")


def _loaded(path: Path) -> tuple[onnx.ModelProto, list[Path]]:
    """Return the model with its weights, and the files of external data beside it."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    _check_size(path, [path])
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise UserError(f"{path}: not an ONNX file, or damaged; copy it again") from error
    if not model.graph.node:
        raise UserError(f"{path}: holds no network; not an ONNX file, or damaged")
    names = dict.fromkeys(_external_names(model))
    data = [path.parent / name for name in names]
    for one in data:
        if not one.is_file():
            raise UserError(
                f"{path}: its weights lie in the file {one.name}, which is not beside it; copy both"
            )
    _check_size(path, [path, *data])
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a valid ONNX file: {first_line(error)}") from error
    return model, data


def _check_size(path: Path, files: list[Path]) -> None:
    size = sum(one.stat().st_size for one in files)
    if size > _LARGEST:
        raise UserError(
            f"{path}: {size / 1e9:.1f} GB with its weights; files of networks that run on a phone "
            f"are far below {_LARGEST / 1e9:.0f} GB"
        )


def _external_names(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the name of the file of each tensor that lies outside the model."""
    for tensor in _tensors(model):
        if external_data_helper.uses_external_data(tensor):
            yield external_data_helper.ExternalDataInfo(tensor).location


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the constants of a model, inside its nodes and beside them."""
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (one.t for one in node.attribute if one.HasField("t"))


def _sha256_of(files: list[Path]) -> str:
    """Return the SHA-256 of a file, or of those of several files one after the other."""
    first, *others = map(sha256_of, files)
    return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first


def _opset(model: onnx.ModelProto) -> int:
    return max(
        (one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0
    )


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuse operators that are too old, of nobody's standard, or of a quantized network."""
    if _opset(model) < _OLDEST:
        raise UserError(
            f"{path}: written for opset {_opset(model)} of ONNX; export the network again with "
            f"opset {_OLDEST} or newer"
        )
    local = {(one.domain, one.name) for one in model.functions}
    custom = {
        f"{node.domain}.{node.op_type} in {node.name or node.output[0]}"
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in local
    }
    if custom:
        raise UserError(
            f"{path}: operators that are not ONNX's own: {', '.join(sorted(custom))}; export the "
            "network without them"
        )
    if any(node.op_type in _QUANTIZED for node in model.graph.node):
        raise UserError(
            f"{path}: already quantized to integers; give the float file, and reslite quantizes it"
        )


def _ends(path: Path, model: onnx.ModelProto) -> Ends:
    """Return how a file takes a picture and hands out the restored one."""
    stored = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in stored]
    outputs = model.graph.output
    for values, word in ((inputs, "inputs"), (outputs, "outputs")):
        if len(values) != 1:
            names = ", ".join(one.name for one in values)
            raise UserError(
                f"{path}: has {len(values)} {word} ({names}); expected a network from one picture "
                "to one"
            )
    image = inputs[0]
    tensor = image.type.tensor_type
    extents = [dim.dim_value or None for dim in tensor.shape.dim]
    if len(extents) != 4:
        raise UserError(
            f"{path}: '{image.name}' has {len(extents)} axes; expected four, 1 × 3 × height × "
            "width or 1 × height × width × 3, or 1 instead of 3"
        )
    channels_last = extents[3] in (1, 3, 4) and extents[1] not in (1, 3, 4)
    batch, *planar = [extents[axis] for axis in (0, 3, 1, 2)] if channels_last else extents
    if batch not in (None, 1):
        raise UserError(f"{path}: takes {batch} pictures at once; export it for one")
    channels, height, width = planar
    if channels not in (None, 3, 1):
        raise UserError(
            f"{path}: takes pictures of {channels} channels; expected RGB, three, or luma, one"
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype not in (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint8)):
        raise UserError(
            f"{path}: takes {dtype} values; expected float32 or float16 in [0, 1], or uint8"
        )
    return Ends(image.name, outputs[0].name, dtype, channels_last, (height, width), channels or 3)


def _in_half(model: onnx.ModelProto) -> bool:
    """Tell whether a file computes in half precision, wholly or in part."""
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    casts = (one.i for node in model.graph.node if node.op_type == "Cast" for one in node.attribute)
    stored = (tensor.data_type for tensor in _tensors(model))
    return any(kind in halves for kind in (*stored, *casts))


def _read(path: Path, model: onnx.ModelProto, ends: Ends) -> Graph:
    """Return the graph of a network.

    Raises:
        UserError: If shapes contradict each other, or constants are not finite.
        CannotLower: If the network holds what the graph cannot.
    """
    try:
        copied = onnx.ModelProto()  # What is read from a model changes with its names.
        copied.CopyFrom(model)
        if _opset(model) < _READ_AS:
            copied = onnx.version_converter.convert_version(copied, _READ_AS)
        read = ir.from_proto(copied)
        prepare(read, ends.shape(_PLAIN))
        graph = read_model(read)
    except CannotLower:
        raise
    except Exception as error:  # onnx and onnxscript raise whatever they meet
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    damaged = [name for name, one in graph.constants.items() if not np.isfinite(one).all()]
    if damaged:
        raise UserError(
            f"{path}: {damaged[0]} holds values that are not finite numbers; train again"
        )
    return graph
