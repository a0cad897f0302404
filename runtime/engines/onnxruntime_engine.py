"""ONNX artifacts through ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import TensorInfo

# Element types of a picture tensor, as ONNX Runtime spells them.
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def open_engine(path: Path, threads: int) -> Engine:
    """Load an ``.onnx`` file on the CPU.

    Raises:
        UserError: If it cannot be read, its tensors are not floats, or ONNX Runtime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "ONNX Runtime is not installed; run pip install onnxruntime, or use the .tflite"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors also arrive as exceptions
    # The pattern allocates a second block for all tensors besides the arena, without gain here.
    options.enable_mem_pattern = False
    # On x86 without VNNI, ONNX Runtime's uint8 × int8 kernels saturate at 16 bits, which costs up
    # to 51 grey levels. This option selects exact kernels and has no effect on other processors.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no other base class
        raise UserError(
            f"{path}: ONNX Runtime cannot read it ({first_line(error)}); export it again"
        ) from error
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        if tensor.type not in _TYPES:
            raise UserError(
                f"{path.name}: '{tensor.name}' is {tensor.type}, expected float or float16; "
                "export it again"
            )
    providers = "+".join(session.get_providers())
    return OnnxRuntimeEngine(f"ONNX Runtime {onnxruntime.__version__} {providers}", session)


class OnnxRuntimeEngine(Engine):
    """An ONNX Runtime session (NCHW; float32 or float16 tensors, quantized inside or not)."""

    def __init__(self, name: str, session: Any) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        super().__init__(name, tuple(map(_info, inputs)), tuple(map(_info, outputs)))
        self._session = session
        self._names = [one.name for one in outputs]
        self._feeds: dict[str, NDArray[Any]] = {}
        self._results: list[NDArray[Any]] = []

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Keep the values of an input for the next ``invoke``."""
        self._feeds[name] = array

    def invoke(self) -> None:
        """Run the network."""
        self._results = self._session.run(self._names, self._feeds)

    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output; every ``invoke`` makes new arrays."""
        return self._results[self._names.index(name)]

    def close(self) -> None:
        """Release the session and its tensors."""
        self._session = None
        self._feeds, self._results = {}, []


def _info(tensor: Any) -> TensorInfo:
    shape = tuple(extent if isinstance(extent, int) else None for extent in tensor.shape)
    return TensorInfo(tensor.name, "NCHW", _TYPES[tensor.type], shape)
