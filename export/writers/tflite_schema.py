"""The flatbuffer of a .tflite file, put together tensor by tensor and operator by operator.

The schema ships in ai-edge-litert. This module adds operator versions, the oldest runtime that
supports these versions, the alignment of constants, and the signature by which apps call the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import DTypeLike, NDArray

Shape = tuple[int | None, ...]
"""Extents; None where the app may choose."""

Version = tuple[int, str]
"""Version of an operator, and the first TensorFlow Lite release that supports it."""

# Versions of each operator on float and on int8 tensors, from TensorFlow's versioning/op_version.cc
# and versioning/runtime_version.cc. DEQUANTIZE reads float16 and int8, TRANSPOSE_CONV has a bias.
_VERSIONS: Mapping[str, tuple[Version, Version]] = {
    "ABS": ((1, "1.13.0"), (2, "2.4.0")),
    "ADD": ((1, "1.5.0"), (2, "1.14.0")),
    "CAST": ((1, "1.5.0"), (3, "2.8.0")),
    "CONCATENATION": ((1, "1.5.0"), (2, "1.14.0")),
    "CONV_2D": ((1, "1.5.0"), (3, "1.14.0")),
    "DEPTH_TO_SPACE": ((1, "2.1.0"), (2, "2.5.0")),
    "DEQUANTIZE": ((3, "1.15.0"), (2, "1.14.0")),
    "DIV": ((1, "1.6.0"), (1, "1.6.0")),
    "EXP": ((1, "1.7.0"), (2, "2.12.0")),
    "GATHER": ((1, "1.6.0"), (2, "1.14.0")),
    "GELU": ((1, "2.9.0"), (2, "2.9.0")),
    "HARD_SWISH": ((1, "1.15.0"), (1, "1.15.0")),
    "LEAKY_RELU": ((1, "1.13.1"), (1, "1.13.1")),
    "LOG": ((1, "1.14.0"), (2, "2.12.0")),
    "LOGISTIC": ((1, "1.14.0"), (2, "1.14.0")),
    "MAXIMUM": ((1, "1.14.0"), (2, "1.14.0")),
    "MEAN": ((1, "1.6.0"), (2, "1.14.0")),
    "MINIMUM": ((1, "1.14.0"), (2, "1.14.0")),
    "MAX_POOL_2D": ((1, "1.5.0"), (2, "1.14.0")),
    "MIRROR_PAD": ((1, "1.13.1"), (2, "2.3.0")),
    "MUL": ((1, "1.5.0"), (2, "1.14.0")),
    "PAD": ((1, "1.5.0"), (2, "1.14.0")),
    "PRELU": ((1, "1.8.0"), (1, "1.8.0")),
    "QUANTIZE": ((1, "1.14.0"), (1, "1.14.0")),
    "REDUCE_MAX": ((1, "1.14.0"), (2, "1.14.0")),
    "RELU": ((1, "1.5.0"), (2, "2.1.0")),
    "RESHAPE": ((1, "1.5.0"), (1, "1.5.0")),
    "SPLIT": ((1, "1.5.0"), (2, "1.14.0")),
    "SPLIT_V": ((1, "1.13.1"), (2, "2.3.0")),
    "SQRT": ((1, "1.10.0"), (1, "1.10.0")),
    "STRIDED_SLICE": ((1, "1.6.0"), (2, "1.14.0")),
    "SUB": ((1, "1.6.0"), (2, "1.14.0")),
    "TANH": ((1, "1.14.0"), (2, "1.14.0")),
    "TRANSPOSE_CONV": ((3, "2.3.0"), (3, "2.3.0")),
}
GROUPED_CONV_2D: Version = (6, "2.9.0")
"""Version of CONV_2D for grouped convolutions."""
GROWING_MUL: Version = (3, "1.15.0")
"""Version of an int8 MUL whose product of input scales is at least its output scale."""

_TYPES: Mapping[np.dtype[Any], int] = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
}
_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16
_RUNTIME_BYTES = 16


class TFLiteFile:
    """A file with one subgraph and the signature ``serving_default``.

    Args:
        description: For people who open the file.
        integer: Whether operators work on int8, which decides their versions.
    """

    def __init__(self, description: str, integer: bool) -> None:
        self._description, self._integer = description, integer
        self._tensors: list[Any] = []
        self._operators: list[tuple[str, Any]] = []
        self._versions: list[tuple[str, Version]] = []
        # The schema reserves the first buffer for tensors without data.
        self._buffers: list[Any] = [schema.BufferT()]
        self._stored: dict[bytes, int] = {}
        self._metadata: list[tuple[str, bytes]] = []

    def add_tensor(
        self,
        name: str,
        dtype: DTypeLike,
        shape: Shape,
        scales: Sequence[float] | NDArray[np.floating[Any]] | None = None,
        zero_point: int = 0,
    ) -> int:
        """Add a tensor without data, an activation, and return its index.

        Args:
            name: Its name.
            dtype: float32, float16, int32 or int8.
            shape: Its extents; activations are N × H × W × C.
            scales: Scales of an integer tensor: one, or one per position on the first axis.
            zero_point: The integer of real zero.
        """
        quantization = None
        if scales is not None:
            quantization = schema.QuantizationParametersT(
                scale=np.asarray(scales, np.float32),
                zeroPoint=np.full(len(scales), zero_point, np.int64),
                quantizedDimension=0,
            )
        self._tensors.append(
            schema.TensorT(
                name=name,
                type=_TYPES[np.dtype(dtype)],
                # Readers that cannot resize take the smallest size.
                shape=[1 if extent is None else extent for extent in shape],
                shapeSignature=[-1 if extent is None else extent for extent in shape]
                if None in shape
                else None,
                hasRank=True,
                quantization=quantization,
            )
        )
        return len(self._tensors) - 1

    def add_constant(
        self,
        name: str,
        array: NDArray[Any],
        scales: NDArray[np.floating[Any]] | None = None,
        zero_point: int = 0,
    ) -> int:
        """Add a constant and return its index; equal bytes are stored once, whatever the scales."""
        index = self.add_tensor(name, array.dtype, array.shape, scales, zero_point)
        content = array.tobytes()
        if content not in self._stored:
            self._stored[content] = len(self._buffers)
            self._buffers.append(_buffer(content))
        self._tensors[index].buffer = self._stored[content]
        return index

    def add_operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: Version | None = None,
        integer: bool | None = None,
    ) -> None:
        """Add an operator.

        Args:
            name: Its name in the schema, for example ``CONV_2D``.
            inputs: Tensors it reads.
            outputs: Tensors it makes.
            options: The schema's options object, if the operator has one.
            version: The version it needs, if that is not the usual version for float or int8.
            integer: Whether it works on int8; None if it does what most of the file does.
        """
        works_on_int8 = self._integer if integer is None else integer
        key = (name, version or _VERSIONS[name][works_on_int8])
        if key not in self._versions:
            self._versions.append(key)
        operator = schema.OperatorT(
            opcodeIndex=self._versions.index(key), inputs=list(inputs), outputs=list(outputs)
        )
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append((name, operator))

    def add_metadata(self, name: str, content: bytes) -> None:
        """Add a metadata entry, which runtimes pass over."""
        self._metadata.append((name, content))

    def operators(self) -> dict[str, int]:
        """Return how often each operator occurs."""
        return dict(sorted(Counter(name for name, _ in self._operators).items()))

    def serialize(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """Return the bytes of the file, with inputs and outputs by name."""
        subgraph = schema.SubGraphT(
            name="main",
            tensors=self._tensors,
            operators=[operator for _, operator in self._operators],
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
        )
        signature = schema.SignatureDefT(
            signatureKey="serving_default",
            inputs=_tensor_maps(inputs),
            outputs=_tensor_maps(outputs),
        )
        runtime = self._oldest_runtime().encode().ljust(_RUNTIME_BYTES, b"\0")
        entries = [("min_runtime_version", runtime), *self._metadata]
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            description=self._description,
            operatorCodes=[_operator_code(name, version) for name, (version, _) in self._versions],
            subgraphs=[subgraph],
            signatureDefs=[signature],
            buffers=[*self._buffers, *(_buffer(content) for _, content in entries)],
            metadata=[
                schema.MetadataT(name=name, buffer=index)
                for index, (name, _) in enumerate(entries, len(self._buffers))
            ],
        )
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _oldest_runtime(self) -> str:
        """Return the oldest TensorFlow Lite that knows every operator of the file."""
        runtimes = (runtime for _, (_, runtime) in self._versions)
        return max(runtimes, key=lambda runtime: [int(part) for part in runtime.split(".")])


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data start at a multiple of 16 bytes.

    The schema demands this alignment (``force_align: 16``); the generated code does not provide it.
    """

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (overrides the generated method)
        builder.Prep(_ALIGNMENT, len(self.data))
        return super().Pack(builder)


def _buffer(content: bytes) -> _AlignedBuffer:
    return _AlignedBuffer(data=np.frombuffer(content, np.uint8))


def _operator_code(name: str, version: int) -> Any:
    code = getattr(schema.BuiltinOperator, name)
    # Old runtimes read the first field, one byte wide; new ones the larger of both.
    return schema.OperatorCodeT(
        builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version
    )


def _tensor_maps(tensors: Mapping[str, int]) -> list[Any]:
    return [schema.TensorMapT(name=name, tensorIndex=index) for name, index in tensors.items()]
