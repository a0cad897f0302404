"""arm64 processors, emulated by QEMU: LiteRT and ONNX Runtime with the kernels that phones run.

The emulation is exact and its time means nothing. See ``benchmarks.devices.arm64_root``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.devices.arm64_root import (
    PROCESSOR,
    RUNTIMES,
    installed_versions,
    launcher,
    missing_root,
    qemu_version,
)
from benchmarks.devices.device import Device, Execution, Subject, Takes, run_session
from runtime.engines.engine import Engine
from runtime.errors import UserError
from runtime.formats import FORMATS
from runtime.session import FloatPicture

_QEMU_VARIABLE = "RESLITE_QEMU"


class Arm64(Device):
    """The CPU of phones: a Cortex-A76, which computes dot products of 8-bit integers."""

    name = "arm64"
    title = "arm64"
    takes = Takes(
        {
            "tflite": ("float32", "float16", "int8"),
            "onnx": ("float32", "float16", "int8"),
        }
    )
    time_limit = 900.0

    def missing(self) -> str | None:
        """Return what is missing: QEMU, or the arm64 Debian with the runtimes of this machine."""
        return missing_root()

    def versions(self) -> Mapping[str, str]:
        """Return the versions of QEMU and of the runtimes in the arm64 Debian."""
        return arm64_versions()

    def interpreter(self) -> Path:
        """Return the emulated Python."""
        return launcher()

    def environment(self) -> Mapping[str, str]:
        """Return QEMU's version, which the emulated process cannot ask for."""
        return {_QEMU_VARIABLE: qemu_version()}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file in the emulated process.

        Raises:
            UserError: If this process is not on an arm64 processor, or the file does not run.
        """
        engine = open_on_arm64(subject)
        outputs = run_session(engine, subject, pictures)
        return Execution(engine.name, outputs, arm64_versions(), fallbacks={})


def arm64_versions() -> Mapping[str, str]:
    """Return the versions that results depend on, here and in the emulated process."""
    installed = installed_versions()
    runtimes = {title: installed[package] for title, package in RUNTIMES.items()}
    return {"QEMU": os.environ.get(_QEMU_VARIABLE) or qemu_version(), **runtimes}


def open_on_arm64(subject: Subject) -> Engine:
    """Open a file on one thread of the emulated processor.

    Raises:
        UserError: If this process is not on an arm64 processor, or the file cannot be opened.
    """
    if platform.machine() != "aarch64":
        raise UserError(f"this process runs on {platform.machine()}, not on arm64")
    module = import_module(f"runtime.engines.{FORMATS[subject.artifact.format].engines[0]}_engine")
    engine: Engine = module.open_engine(subject.path, 1)
    engine.name = f"{engine.name} (QEMU {arm64_versions()['QEMU']}, {PROCESSOR})"
    return engine
