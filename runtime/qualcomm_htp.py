"""Qualcomm's HTP (the Hexagon NPU) as onnxruntime-qnn compiles for and simulates it on x86-64.

The library brings Qualcomm's backend for the HTP, which compiles a file for an architecture and
computes with its arithmetic; its speed is that of this CPU and means nothing. A file runs whole or
not at all: no operator may fall back to ONNX Runtime's CPU provider, neither when the file is
opened nor when running it fails.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.errors import UserError, first_line
from runtime.formats import Precision
from runtime.native_messages import kept_messages
from runtime.snapdragon import FLOAT_ARCHITECTURE, Snapdragon

PACKAGE = "onnxruntime-qnn"
TESTED = "2.7.0"
"""The version of onnxruntime-qnn that the settings below are known to work with."""

_PROVIDER = "QNNExecutionProvider"


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


def htp_options(soc: Snapdragon, precision: Precision) -> dict[str, str]:
    """Return the provider's options for a file of a precision on an SoC, without its paths."""
    # Without an architecture the simulation takes one of its own. Pictures are quantized on the
    # HTP, too: by default the provider leaves that to the CPU.
    options = {"htp_arch": str(soc.architecture), "offload_graph_io_quantization": "0"}
    if precision != "int8":
        options |= {"soc_model": str(soc.model), "enable_htp_fp16_precision": "1"}
    return options


def open_on_htp(
    path: Path, precision: Precision, soc: Snapdragon, entries: Mapping[str, str] | None = None
) -> Any:
    """Open an ONNX file on the HTP of an SoC and on nothing else.

    Args:
        path: The file, of fixed size.
        precision: The file's precision.
        soc: The SoC.
        entries: Further entries of ONNX Runtime's session configuration.

    Returns:
        ONNX Runtime's session.

    Raises:
        UserError: If the HTP does not take every operator (all others are named), or cannot compile
            the file.
    """
    import onnxruntime
    import onnxruntime_qnn as qnn

    known = {device.ep_name for device in onnxruntime.get_ep_devices()}
    if _PROVIDER not in known:
        onnxruntime.register_execution_provider_library(_PROVIDER, qnn.get_library_path())
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == _PROVIDER]
    if not devices:
        raise UserError(f"{PACKAGE} offers no device here; install it again")
    provider = {"backend_path": qnn.get_qnn_htp_path(), **htp_options(soc, precision)}

    def opened(config: Mapping[str, str]) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors also arrive as exceptions
        for key, value in config.items():
            options.add_session_config_entry(key, value)
        options.add_provider_for_devices(devices, provider)
        with kept_messages():  # the library announces itself
            return onnxruntime.InferenceSession(str(path), options)

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
