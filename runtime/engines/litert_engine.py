"""TFLite artifacts through LiteRT, or through its predecessor if LiteRT is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import TensorInfo
from runtime.native_messages import kept_messages, write_messages


def open_engine(path: Path, threads: int) -> Engine:
    """Load a ``.tflite`` file on the CPU.

    Raises:
        UserError: If it cannot be read or no TFLite runtime is installed.
    """
    interpreter, name = _interpreter_class()
    try:
        with _quietly():
            made = interpreter(model_path=str(path), num_threads=threads)
        return LiteRTEngine(name, made)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: {name} cannot read it ({first_line(error)}); export it again"
        ) from error


class LiteRTEngine(Engine):
    """A TFLite interpreter (NHWC); its tensors are allocated when an input changes its shape."""

    def __init__(self, name: str, interpreter: Any) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        super().__init__(name, tuple(map(_info, inputs)), tuple(map(_info, outputs)))
        self._interpreter = interpreter
        self._indices = {one["name"]: one["index"] for one in (*inputs, *outputs)}
        self._shapes = {one["name"]: tuple(map(int, one["shape"])) for one in inputs}
        self._allocated = self._has_allocated = False

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Set the values of an input; a new shape reallocates all tensors."""
        index = self._indices[name]
        if array.shape != self._shapes[name]:
            self._allocated = False
            self._interpreter.resize_tensor_input(index, array.shape)
            self._shapes[name] = array.shape
        if not self._allocated:
            self._allocate()
            self._allocated = True
        self._interpreter.set_tensor(index, array)

    def _allocate(self) -> None:
        # The first allocation makes the delegate, which LiteRT announces.
        if self._has_allocated:
            self._interpreter.allocate_tensors()
            return
        with _quietly():
            self._interpreter.allocate_tensors()
        self._has_allocated = True

    def invoke(self) -> None:
        """Run the network."""
        self._interpreter.invoke()

    def fetch(self, name: str) -> NDArray[Any]:
        """Return a copy of an output."""
        output: NDArray[Any] = self._interpreter.get_tensor(self._indices[name])
        return output

    def close(self) -> None:
        """Release the interpreter and its tensors."""
        self._interpreter = None


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep announcements of LiteRT from the terminal, and pass on what else it writes there.

    Raises:
        RuntimeError: If the block raises it or ``ValueError``; what LiteRT wrote is in the message.
    """
    said: list[str] = []
    try:
        with kept_messages() as said:
            yield
    except (RuntimeError, ValueError) as error:
        raise RuntimeError("; ".join([first_line(error), *_complaints(said)])) from error
    write_messages(_complaints(said))


def _complaints(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("INFO: ")]


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


def _info(tensor: dict[str, Any]) -> TensorInfo:
    shape = tuple(None if extent < 0 else int(extent) for extent in tensor["shape_signature"])
    scale, zero_point = tensor["quantization"]
    return TensorInfo(
        name=tensor["name"],
        layout="NHWC",
        dtype=np.dtype(tensor["dtype"]).name,
        shape=shape,
        scale=scale if scale > 0 else None,
        zero_point=zero_point if scale > 0 else None,
    )
