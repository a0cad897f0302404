"""An NVIDIA card, by ONNX Runtime's CUDA provider.

Input and output stay in the card's memory; an inference ends when the card has finished, so that
its time is what an application waits. Operators that the provider would leave to the CPU are
refused: a file runs on the card as a whole or not at all.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Execution, Subject, Takes, run_session
from benchmarks.devices.timed_process import ProcessTimedDevice
from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import TensorInfo
from runtime.session import FloatPicture

_CUDA = "CUDAExecutionProvider"
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class Cuda(ProcessTimedDevice):
    """The first NVIDIA card."""

    name = "cuda"
    title = "CUDA"
    evidence = "measured"
    takes = Takes({"onnx": ("float32", "float16", "int8")})
    opener = "benchmarks.devices.cuda"

    def missing(self) -> str | None:
        """Return that there is no card, or ONNX Runtime without its provider, or None."""
        if shutil.which("nvidia-smi") is None:
            return "needs an NVIDIA card and its driver: nvidia-smi is not found"
        found = find_spec("onnxruntime")
        folder = Path(found.origin).parent / "capi" if found and found.origin else Path()
        if not any(folder.glob("*onnxruntime_providers_cuda*")):
            return "needs ONNX Runtime with CUDA: pip install onnxruntime-gpu"
        return None

    def machine(self) -> str:
        """Return the name of the card and its driver.

        Raises:
            UserError: If the driver finds none.
        """
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = run.stdout.strip().splitlines()
        if run.returncode or not lines:
            raise UserError(f"nvidia-smi finds no card ({(run.stderr or run.stdout).strip()})")
        return lines[0]

    def untimed(self, path: Path) -> str | None:
        """Return that a file is not ONNX, or None."""
        return None if path.suffix == ".onnx" else f"not run ({self.title} opens .onnx alone)"

    def versions(self) -> Mapping[str, str]:
        """Return ONNX Runtime's version."""
        return {"onnxruntime-gpu": metadata.version("onnxruntime-gpu")}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file on the card."""
        engine = open_engine(subject.path, 1, "")
        return Execution(engine.name, run_session(engine, subject, pictures), self.versions())


def open_engine(path: Path, threads: int, option: str) -> Engine:
    """Load an ``.onnx`` file on the card.

    Raises:
        UserError: If it cannot be loaded, or not all of it would run on the card.
    """
    return open_on(path, threads, _CUDA, "cuda")


def open_on(path: Path, threads: int, provider: str, place: str) -> Engine:
    """Load a file on a provider, with its input and output in that provider's memory.

    Args:
        path: The file.
        threads: CPU threads for what is left to the CPU: nothing but transfers.
        provider: Name of the provider.
        place: ``cuda`` or ``cpu``.

    Raises:
        UserError: If it cannot be loaded, or not all of it would run on the provider.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if provider == _CUDA:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its exceptions share no other base class
        raise UserError(f"{path.name}: does not run on {provider} ({first_line(error)})") from error
    if session.get_providers()[0] != provider:
        raise UserError(f"{path.name}: ONNX Runtime fell back to {session.get_providers()[0]}")
    return BoundEngine(f"ONNX Runtime {onnxruntime.__version__} {provider}", session, place)


class BoundEngine(Engine):
    """An ONNX Runtime session whose tensors stay where it computes."""

    def __init__(self, name: str, session: Any, place: str) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        super().__init__(name, tuple(map(_info, inputs)), tuple(map(_info, outputs)))
        self._session, self._place = session, place
        self._binding = session.io_binding()

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Copy the values of an input to the device."""
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._place)
        self._binding.bind_ortvalue_input(name, value)
        for output in self.outputs:
            self._binding.bind_output(output.name, self._place)

    def invoke(self) -> None:
        """Run the network and wait for the device."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output, copied from the device."""
        names = [one.name for one in self.outputs]
        made: NDArray[Any] = self._binding.copy_outputs_to_cpu()[names.index(name)]
        return made

    def close(self) -> None:
        """Release the session and its tensors."""
        self._session = self._binding = None


def _info(tensor: Any) -> TensorInfo:
    shape = tuple(extent if isinstance(extent, int) else None for extent in tensor.shape)
    return TensorInfo(tensor.name, "NCHW", _TYPES.get(tensor.type, tensor.type), shape)
