"""ONNX artifacts through OpenVINO on the CPU, in the precision they were exported in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import TensorInfo


def open_engine(path: Path, threads: int) -> Engine:
    """Compile an ``.onnx`` file for the CPU.

    Raises:
        UserError: If it cannot be read or OpenVINO is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise UserError("OpenVINO is not installed; run pip install 'reslite[openvino]'") from error
    # Without the hint, CPUs with AMX compute float32 networks in bfloat16.
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
        inputs, outputs = tuple(map(_info, compiled.inputs)), tuple(map(_info, compiled.outputs))
    except RuntimeError as error:
        raise UserError(
            f"{path}: OpenVINO cannot read it ({first_line(error)}); export it again"
        ) from error
    version = openvino.__version__.split("-")[0]
    devices = "+".join(compiled.get_property("EXECUTION_DEVICES"))
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    name = f"OpenVINO {version} {devices} ({precision})"
    request = compiled.create_infer_request()
    return OpenVINOEngine(name, inputs, outputs, request, openvino.Tensor)


class OpenVINOEngine(Engine):
    """A request of a compiled model (NCHW; float tensors, quantized inside or not)."""

    def __init__(
        self,
        name: str,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        request: Any,
        tensor: Callable[[NDArray[Any]], Any],
    ) -> None:
        super().__init__(name, inputs, outputs)
        self._request, self._tensor = request, tensor

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Copy the values of an input."""
        self._request.set_tensor(name, self._tensor(array))

    def invoke(self) -> None:
        """Run the network."""
        self._request.infer()

    def fetch(self, name: str) -> NDArray[Any]:
        """Return a copy of an output, because the next ``invoke`` reuses its memory."""
        return np.array(self._request.get_tensor(name).data)

    def close(self) -> None:
        """Release the compiled network and its tensors."""
        self._request = None


def _info(port: Any) -> TensorInfo:
    shape = tuple(
        None if dimension.is_dynamic else dimension.get_length()
        for dimension in port.get_partial_shape()
    )
    dtype = np.dtype(port.element_type.to_dtype()).name
    return TensorInfo(port.get_any_name(), "NCHW", dtype, shape)
