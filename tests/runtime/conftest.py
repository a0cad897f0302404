"""Tiny networks with random weights, written without any package of this repository.

The ONNX network is conv 3×3 → ReLU → conv 3×3 → DepthToSpace → conv 3×3: its receptive field has a
radius of three input pixels (one per convolution, the last one's share rounded up). The TFLite
network is conv 3×3 → DEPTH_TO_SPACE, radius one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

import runtime
from runtime.manifest import Artifact, Manifest, TensorInfo, sha256_of
from runtime.session import Session

ONNX_HALO = 3
TFLITE_HALO = 1

# Scales and zero points of the int8 TFLite network's picture and result.
INT8_INPUT = (1 / 255, -128)
INT8_OUTPUT = (1.5 / 255, -100)


def write_onnx(
    path: Path,
    size: tuple[int, int] | None = None,
    *,
    scale: int = 2,
    channels: int = 3,
    inputs: int = 1,
    half: bool = False,
) -> Path:
    """Write the ONNX network; extra inputs are added to the picture."""
    random = np.random.default_rng(0)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT

    def weights(name: str, *shape: int, gain: float = 1.0) -> onnx.TensorProto:
        values = gain * random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float16 if half else np.float32), name)

    height, width = size or ("height", "width")
    names = ["image", *(f"extra{number}" for number in range(1, inputs))]
    pictures = [helper.make_tensor_value_info(n, kind, [1, channels, height, width]) for n in names]
    restored = helper.make_tensor_value_info("restored_image", kind, [1, channels, None, None])
    nodes = [
        helper.make_node("Sum", names, ["x"]),
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c2"], ["d"], blocksize=scale),
        helper.make_node("Conv", ["d", "w3", "b3"], ["restored_image"], pads=[1] * 4),
    ]
    middle = 4 * scale * scale
    constants = [
        weights("w1", 8, channels, 3, 3, gain=2),
        weights("b1", 8),
        weights("w2", middle, 8, 3, 3),
        weights("w3", channels, 4, 3, 3),
        numpy_helper.from_array(np.full(channels, 0.5, np.float16 if half else np.float32), "b3"),
    ]
    graph = helper.make_graph(nodes, "network", pictures, [restored], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def tflite_weights() -> tuple[np.ndarray, np.ndarray]:
    """Weights (12 × 3 × 3 × 3, output first, then H, W, input) and biases of the TFLite network."""
    random = np.random.default_rng(1)
    weights = random.uniform(-0.12, 0.16, (12, 3, 3, 3)).astype(np.float32)
    return weights, random.uniform(0, 0.2, 12).astype(np.float32)


def quantized_tflite_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same as int8 weights, int32 biases and the weights' scales, one per output channel."""
    weights, biases = tflite_weights()
    scales = np.abs(weights).max(axis=(1, 2, 3)) / 127
    quantized = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
    return quantized, np.rint(biases / (scales * INT8_INPUT[0])).astype(np.int32), scales


class FlatbufferModel:
    """A TFLite model under construction."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "main"

    def tensor(
        self,
        name: str,
        shape: list[int],
        kind: int,
        data: np.ndarray | None = None,
        quantization: tuple[Any, Any] | None = None,
    ) -> int:
        """Add a tensor; an extent of -1 is free."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer, tensor.hasRank = name, kind, 0, True
        tensor.shape = [max(1, extent) for extent in shape]
        if -1 in shape:
            tensor.shapeSignature = shape
        if quantization is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(np.asarray(quantization[0], np.float32))
            tensor.quantization.zeroPoint = np.atleast_1d(np.asarray(quantization[1], np.int64))
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self, code: str, inputs: list[int], output: int, version: int, **options: int
    ) -> None:
        """Add an operator by its name in the schema, for example ``CONV_2D``."""
        words = {"CONV_2D": "Conv2D", "DEPTH_TO_SPACE": "DepthToSpace", "CAST": "Cast"}
        entry, operator = schema.OperatorCodeT(), schema.OperatorT()
        entry.builtinCode = entry.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, code)
        entry.version = version
        self.model.operatorCodes.append(entry)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{words[code]}Options")
        operator.builtinOptions = getattr(schema, f"{words[code]}OptionsT")()
        for option, value in options.items():
            setattr(operator.builtinOptions, option, value)
        self.graph.operators.append(operator)

    def convolution(self, inputs: list[int], output: int, version: int) -> None:
        """Add a 3×3 convolution that keeps the size."""
        self.operator(
            "CONV_2D",
            inputs,
            output,
            version,
            padding=schema.Padding.SAME,
            strideW=1,
            strideH=1,
            dilationWFactor=1,
            dilationHFactor=1,
        )

    def write(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def write_tflite(path: Path, int8: bool = False, size: tuple[int, int] | None = None) -> Path:
    """Write the TFLite network."""
    model, kinds = FlatbufferModel(), schema.TensorType
    kind = kinds.INT8 if int8 else kinds.FLOAT32
    height, width = size or (-1, -1)
    tall, wide = (-1, -1) if size is None else (2 * height, 2 * width)
    if int8:
        weights, biases, scales = quantized_tflite_weights()
        zeros = np.zeros(12)
        conv = [
            model.tensor("weights", [12, 3, 3, 3], kind, weights, (scales, zeros)),
            model.tensor("biases", [12], kinds.INT32, biases, (scales * INT8_INPUT[0], zeros)),
        ]
    else:
        weights, biases = tflite_weights()
        conv = [
            model.tensor("weights", [12, 3, 3, 3], kind, weights),
            model.tensor("biases", [12], kind, biases),
        ]
    inside, outside = (INT8_INPUT, INT8_OUTPUT) if int8 else (None, None)
    image = model.tensor("image", [1, height, width, 3], kind, None, inside)
    features = model.tensor("features", [1, height, width, 12], kind, None, outside)
    restored = model.tensor("restored_image", [1, tall, wide, 3], kind, None, outside)
    model.convolution([image, *conv], features, 3 if int8 else 1)
    model.operator("DEPTH_TO_SPACE", [features], restored, 2 if int8 else 1, blockSize=2)
    return model.write(path, [image], [restored])


def write_manifest(artifact: Path, scale: int, halo: int) -> Manifest:
    """Write a manifest.json beside an artifact that names it."""
    picture = TensorInfo("image", "NCHW", "float32", (1, 3, None, None))
    entry = Artifact(
        file=artifact.name,
        format="onnx",
        precision="float32",
        sha256=sha256_of(artifact),
        bytes=1,
        input=picture,
        output=picture,
        profile="test",
        rewrites=(),
        multadds=0,
        operators={},
    )
    manifest = Manifest("test", scale, halo, "", {}, {}, (entry,))
    manifest.write(artifact.parent)
    return manifest


def icc_profile(space: bytes, corners: dict[int, tuple[int, int, int]]) -> bytes:
    """Build an ICC v2 output profile with a table of two points per ink (ICC.1:2001-04, 6.5.9).

    Args:
        space: Colour space, for example ``b"CMYK"``.
        corners: Lab (0…255 each, a and b around 128) of the corners of the ink cube that are not
            black, numbered in binary, first ink first.
    """
    inks = len(space.strip())
    table = b"".join(bytes(corners.get(corner, (0, 128, 128))) for corner in range(2**inks))
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([inks, 3, 2, 0]) + matrix
    lut += identity * inks + table + identity * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67 + 12)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": text, b"wtpt": white, b"A2B0": lut}
    directory, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        directory += name + struct.pack(">2I", 132 + 12 * len(tags) + len(content), len(value))
        content += value
    head = struct.pack(">I4sI4s4s4s", 132 + 12 * len(tags) + len(content), b"test", 0x02100000,
                       b"prtr", space, b"Lab ")  # fmt: skip
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + directory + content


def write_coreai(path: Path) -> Path:
    """Write an asset that doubles a picture's size by repeating pixels."""
    ca = pytest.importorskip("coreai.authoring", reason="Core AI is beta and an extra")
    given = ca.TensorType((1, 3, -1, -1), np.float32, "image")
    made = ca.TensorType((1, 3, -1, -1), np.float32, "restored_image")
    twice, once, none = (np.array(two, np.uint32) for two in ((2, 2), (1, 1), (0, 0)))
    kernel = np.ones((3, 1, 2, 2), np.float32)

    def main(image):  # type: ignore[no-untyped-def]
        repeated = ca.conv_transpose2d(image, kernel, twice, none, once, none, np.uint32(3))
        return ca.cast(repeated, made)

    main.__annotations__ = {
        "image": Annotated[ca.Value, given],
        "return": Annotated[ca.Value, made],
    }
    module = ca.Module.create()
    with module:
        ca.graph(main)
    ca.AIProgram(module).save_asset(path)
    return path


@pytest.fixture(name="write_coreai")
def write_coreai_fixture() -> Callable[..., Path]:
    return write_coreai


@pytest.fixture(name="write_onnx")
def write_onnx_fixture() -> Callable[..., Path]:
    return write_onnx


@pytest.fixture(name="write_tflite")
def write_tflite_fixture() -> Callable[..., Path]:
    return write_tflite


@pytest.fixture(name="write_manifest")
def write_manifest_fixture() -> Callable[..., Manifest]:
    return write_manifest


@pytest.fixture(name="icc_profile")
def icc_profile_fixture() -> Callable[..., bytes]:
    return icc_profile


@pytest.fixture(name="flatbuffer_model")
def flatbuffer_model_fixture() -> type[FlatbufferModel]:
    return FlatbufferModel


@pytest.fixture(name="tflite_weights")
def tflite_weights_fixture() -> tuple[np.ndarray, np.ndarray]:
    return tflite_weights()


@pytest.fixture(name="quantized_tflite")
def quantized_tflite_fixture() -> dict[str, Any]:
    """Weights and scales of the int8 TFLite network."""
    weights, biases, scales = quantized_tflite_weights()
    return {"weights": weights, "biases": biases, "scales": scales,
            "input": INT8_INPUT, "output": INT8_OUTPUT}  # fmt: skip


@pytest.fixture(scope="session")
def onnx_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The ONNX network ×2 with its manifest (halo 3)."""
    path = write_onnx(tmp_path_factory.mktemp("onnx") / "network.onnx")
    write_manifest(path, scale=2, halo=ONNX_HALO)
    with runtime.open(path, threads=1) as session:
        yield session


@pytest.fixture(scope="session")
def int8_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The int8 TFLite network ×2 with its manifest (halo 1)."""
    path = write_tflite(tmp_path_factory.mktemp("tflite") / "network.tflite", int8=True)
    write_manifest(path, scale=2, halo=TFLITE_HALO)
    with runtime.open(path, threads=1) as session:
        yield session
