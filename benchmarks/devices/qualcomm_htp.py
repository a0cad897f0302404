"""Qualcomm's HTP (the Hexagon NPU) as onnxruntime-qnn simulates it on Linux x86-64.

The library brings Qualcomm's backend for the HTP, which compiles a file for an architecture and
computes with its arithmetic; its speed is that of this CPU and means nothing. A file runs whole or
not at all: no operator may fall back to ONNX Runtime's CPU provider, neither when the file is
opened nor when running it fails.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from benchmarks.devices.device import Device, Execution, Subject, Takes, run_session
from runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from runtime.errors import UserError, first_line
from runtime.formats import Precision
from runtime.native_messages import kept_messages
from runtime.session import FloatPicture
from runtime.snapdragon import FLOAT_ARCHITECTURE, Snapdragon

PACKAGE = "onnxruntime-qnn"
TESTED = "2.7.0"
"""The version of onnxruntime-qnn that the settings below are known to work with."""

_PROVIDER = "QNNExecutionProvider"


class QualcommHTP(Device):
    """The HTP of one SoC.

    Attributes:
        soc: The SoC.
    """

    time_limit = 300.0

    def __init__(self, soc: Snapdragon) -> None:
        self.soc = soc
        self.name = f"qualcomm-htp-v{soc.architecture}"
        self.title = f"Qualcomm HTP v{soc.architecture}"
        self.takes = Takes({"onnx": htp_precisions(soc)}, fixed_size=True)

    def missing(self) -> str | None:
        """Return what is missing: onnxruntime-qnn, or a machine that it runs on."""
        return missing_qnn()

    def versions(self) -> Mapping[str, str]:
        """Return the versions of ONNX Runtime and of its provider for Qualcomm."""
        return {"ONNX Runtime": metadata.version("onnxruntime"), PACKAGE: metadata.version(PACKAGE)}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file on the HTP alone.

        Raises:
            UserError: If the HTP does not take every operator (all others are named), or fails.
        """
        with kept_messages():  # the library announces itself
            session = open_on_htp(subject, self.soc)
        version = metadata.version(PACKAGE)
        name = f"{PACKAGE} {version} HTP v{self.soc.architecture} (simulated, {self.soc.name})"
        outputs = run_session(OnnxRuntimeEngine(name, session), subject, pictures)
        facts = {} if version == TESTED else {"tested with": f"{PACKAGE} {TESTED}"}
        return Execution(
            name, outputs, self.versions(), {}, facts, settings=self._settings(subject)
        )

    def _settings(self, subject: Subject) -> str:
        given = {"session.disable_cpu_ep_fallback": "1", **htp_options(self.soc, subject)}
        return ", ".join(f"{key}={value}" for key, value in given.items())


def missing_qnn() -> str | None:
    """Return what is missing to run Qualcomm's libraries here, with the command, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "needs Linux on x86-64: there is no other simulation of the HTP"
    if find_spec("onnxruntime_qnn") is None:
        return f"needs {PACKAGE}: pip install 'reslite[qnn]'"
    return None


def htp_precisions(soc: Snapdragon) -> tuple[Precision, ...]:
    """Return the precisions that Qualcomm's compilers take for an SoC here."""
    if soc.architecture < FLOAT_ARCHITECTURE:
        return ("int8",)
    return ("float32", "float16", "int8")


def htp_options(soc: Snapdragon, subject: Subject) -> dict[str, str]:
    """Return the provider's options for a file on an SoC, without its paths."""
    # Without an architecture the simulation takes one of its own. Pictures are quantized on the
    # HTP, too: by default the provider leaves that to the CPU.
    options = {"htp_arch": str(soc.architecture), "offload_graph_io_quantization": "0"}
    if subject.artifact.precision != "int8":
        options |= {"soc_model": str(soc.model), "enable_htp_fp16_precision": "1"}
    return options


def open_on_htp(subject: Subject, soc: Snapdragon, entries: Mapping[str, str] | None = None) -> Any:
    """Open an ONNX file on the HTP of an SoC and on nothing else.

    Args:
        subject: The file, of fixed size.
        soc: The SoC.
        entries: Further entries of ONNX Runtime's session configuration.

    Raises:
        UserError: If the HTP does not take every operator, or cannot compile the file.
    """
    import onnxruntime
    import onnxruntime_qnn as qnn

    known = {device.ep_name for device in onnxruntime.get_ep_devices()}
    if _PROVIDER not in known:
        onnxruntime.register_execution_provider_library(_PROVIDER, qnn.get_library_path())
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == _PROVIDER]
    if not devices:
        raise UserError(f"{PACKAGE} offers no device here; install it again")
    provider = {"backend_path": qnn.get_qnn_htp_path(), **htp_options(soc, subject)}

    def opened(config: Mapping[str, str]) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors also arrive as exceptions
        for key, value in config.items():
            options.add_session_config_entry(key, value)
        options.add_provider_for_devices(devices, provider)
        return onnxruntime.InferenceSession(str(subject.path), options)

    try:
        session = opened({"session.disable_cpu_ep_fallback": "1", **(entries or {})})
    except Exception as error:  # its exceptions share no other base class
        if "fallback to CPU EP has been explicitly disabled" not in str(error):
            raise UserError(
                f"HTP v{soc.architecture} cannot compile it ({first_line(error)})"
            ) from error
        left = _left_to_cpu(opened({"session.record_ep_graph_assignment_info": "1"}))
        refused = ", ".join(f"{count} {op}" for op, count in sorted(left.items()))
        raise UserError(f"HTP v{soc.architecture} does not take: {refused}") from error
    # On an error at run time, ONNX Runtime would open the file again on the CPU and return that.
    session.disable_fallback()
    return session


def _left_to_cpu(session: Any) -> Counter[str]:
    """Return how often each operator was given to another provider than Qualcomm's."""
    return Counter(
        node.op_type
        for subgraph in session.get_provider_graph_assignment_info()
        if subgraph.ep_name != _PROVIDER
        for node in subgraph.get_nodes()
    )
