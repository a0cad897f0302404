"""Qualcomm's HTP (the Hexagon NPU), simulated; see ``runtime.qualcomm_htp``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata

from benchmarks.devices.device import Device, Execution, Subject, Takes, run_session
from runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from runtime.qualcomm_htp import (
    PACKAGE,
    TESTED,
    htp_options,
    htp_precisions,
    missing_qnn,
    open_on_htp,
)
from runtime.session import FloatPicture
from runtime.snapdragon import Snapdragon


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
        session = open_on_htp(subject.path, subject.artifact.precision, self.soc)
        version = metadata.version(PACKAGE)
        name = f"{PACKAGE} {version} HTP v{self.soc.architecture} (simulated, {self.soc.name})"
        outputs = run_session(OnnxRuntimeEngine(name, session), subject, pictures)
        facts = {} if version == TESTED else {"tested with": f"{PACKAGE} {TESTED}"}
        return Execution(
            name, outputs, self.versions(), {}, facts, settings=self._settings(subject)
        )

    def _settings(self, subject: Subject) -> str:
        given = {
            "session.disable_cpu_ep_fallback": "1",
            **htp_options(self.soc, subject.artifact.precision),
        }
        return ", ".join(f"{key}={value}" for key, value in given.items())
