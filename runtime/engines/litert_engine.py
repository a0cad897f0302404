"""TFLite artifacts through LiteRT, or through its predecessor where only that is installed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError, first_line
from runtime.sessions import (
    Description,
    FloatPicture,
    Session,
    check_picture_tensors,
    pictures_of,
)

_TYPES = (np.float32, np.float16, np.int8, np.uint8)


class LiteRTSession(Session):
    """A ``.tflite`` file on the CPU (NHWC; float32, float16, int8 or uint8 tensors)."""

    def __init__(self, path: Path, description: Description | None, threads: int) -> None:
        interpreter, name = _interpreter_class()
        try:
            self._interpreter = interpreter(model_path=str(path), num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{path}: {name} cannot read it ({first_line(error)}); export it again"
            ) from error
        ports = (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        inputs, outputs = (pictures_of(one, description, lambda t: t["name"]) for one in ports)
        self._beside = {one["name"]: one for port in ports for one in port}
        fixed_size = check_picture_tensors(
            path.name, "NHWC", [_shape(one) for one in inputs], [_shape(one) for one in outputs]
        )
        self._input, self._output = inputs[0], outputs[0]
        for tensor in (self._input, self._output):
            _check_type(path.name, tensor)
        self._allocated: tuple[int, ...] = ()
        super().__init__(name, fixed_size, description)

    def invoke(self) -> None:
        """Run the network on the prepared picture."""
        self._interpreter.invoke()

    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""
        return _decoded(self._interpreter.get_tensor(self._output["index"])[0], self._output)

    def close(self) -> None:
        """Release the interpreter and its tensors."""
        self._interpreter = None

    def _feed(self, image: FloatPicture) -> None:
        shape = (1, *image.shape)
        index = self._input["index"]
        if shape != self._allocated:
            try:
                self._interpreter.resize_tensor_input(index, shape)
                self._interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise UserError(
                    f"{self.runtime_name} cannot run this artifact at {shape[1]}×{shape[2]} "
                    f"({first_line(error)}); export it again, or restore in tiles of another size"
                ) from error
            self._allocated = shape
        self._interpreter.set_tensor(index, _encoded(image, self._input)[np.newaxis])

    def _feed_pooled(self, pooled: FloatPicture) -> None:
        assert self.pooling is not None
        tensor = self._beside[self.pooling.pooled.name]
        values = _encoded(pooled, tensor)[np.newaxis, np.newaxis, np.newaxis]
        self._interpreter.set_tensor(tensor["index"], values)

    def _features(self) -> FloatPicture:
        assert self.pooling is not None
        tensor = self._beside[self.pooling.features.name]
        return _decoded(self._interpreter.get_tensor(tensor["index"])[0], tensor)


def _interpreter_class() -> tuple[Any, str]:
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, f"LiteRT {metadata.version('ai-edge-litert')}"
    except ImportError:
        pass
    try:
        from tflite_runtime.interpreter import Interpreter

        return Interpreter, f"TFLite Runtime {metadata.version('tflite-runtime')}"
    except ImportError as error:
        raise UserError(
            "no TFLite runtime found; run pip install ai-edge-litert, or use the .onnx artifact"
        ) from error


def _shape(tensor: dict[str, Any]) -> list[int | None]:
    return [None if extent < 0 else int(extent) for extent in tensor["shape_signature"]]


def _check_type(file: str, tensor: dict[str, Any]) -> None:
    name, dtype = tensor["name"], np.dtype(tensor["dtype"])
    if dtype not in _TYPES:
        raise UserError(
            f"{file}: tensor '{name}' is {dtype}, expected float32, float16, int8 or uint8; "
            "export it again"
        )
    if dtype.kind in "iu" and tensor["quantization"][0] <= 0:
        raise UserError(f"{file}: tensor '{name}' is {dtype} without a scale; export it again")


def _encoded(image: FloatPicture, tensor: dict[str, Any]) -> NDArray[Any]:
    """Convert to the tensor's type: q = clip(round(x / scale) + zero point), half to even."""
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind == "f":
        return image.astype(dtype, copy=False)
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(dtype)
    quantized = np.rint(image / np.float32(scale)) + np.float32(zero_point)
    encoded: NDArray[Any] = np.clip(quantized, limits.min, limits.max).astype(dtype)
    return encoded


def _decoded(values: NDArray[Any], tensor: dict[str, Any]) -> FloatPicture:
    """Convert from the tensor's type: x = (q − zero point) · scale."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    scale, zero_point = tensor["quantization"]
    restored: FloatPicture = values.astype(np.float32) - np.float32(zero_point)
    return restored * np.float32(scale)
