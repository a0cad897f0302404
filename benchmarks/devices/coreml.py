"""Core ML on macOS, by compute units: CPU, GPU or Neural Engine.

Written after the documentation of coremltools 9 and not run by its authors, who have no Mac; it is
labelled so in docs/bench.md. Core ML decides itself where each operation runs: its compute plan is
read, and a device that would run nothing of a file refuses it. What it ran is part of the runtime's
name in every result.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.devices.device import Execution, Subject, Takes, run_session
from benchmarks.devices.timed_process import ProcessTimedDevice
from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.session import FloatPicture

_PLACES = {
    "CPU_ONLY": "MLCPUComputeDevice",
    "CPU_AND_GPU": "MLGPUComputeDevice",
    "CPU_AND_NE": "MLNeuralEngineComputeDevice",
}
"""The device that must run something of a file, by the compute units that are allowed."""


class CoreML(ProcessTimedDevice):
    """Core ML with some of its compute units.

    Attributes:
        units: Name in ``coremltools.ComputeUnit``.
    """

    evidence = "measured"
    takes = Takes({"coreml": ("float32", "float16", "int8")})
    opener = "benchmarks.devices.coreml"

    def __init__(self, name: str, title: str, units: str) -> None:
        self.name, self.title, self.units = name, title, units
        self.option = units

    def missing(self) -> str | None:
        """Return that this is no Mac, or that coremltools is missing, or None."""
        if sys.platform != "darwin":
            return "needs macOS: Core ML runs on Apple's systems alone"
        if find_spec("coremltools") is None:
            return "needs coremltools: pip install 'reslite[export]'"
        return None

    def untimed(self, path: Path) -> str | None:
        """Return that a file is none of Core ML, or None."""
        if path.suffix != ".mlpackage":
            return f"not run ({self.title} opens .mlpackage alone)"
        return super().untimed(path)

    def versions(self) -> Mapping[str, str]:
        """Return the versions of macOS and coremltools."""
        return {"macOS": platform.mac_ver()[0], "coremltools": metadata.version("coremltools")}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file on the compute units."""
        engine = open_engine(subject.path, 1, self.units)
        return Execution(engine.name, run_session(engine, subject, pictures), self.versions())


def open_engine(path: Path, threads: int, units: str) -> Engine:
    """Load an ``.mlpackage`` on compute units; Core ML chooses its threads.

    Raises:
        UserError: If it cannot be loaded, or nothing of it would run on the device.
    """
    import coremltools

    from runtime.engines.coreml_engine import CoreMLEngine

    allowed = coremltools.ComputeUnit[units]
    try:
        model = coremltools.models.MLModel(str(path), compute_units=allowed)
        plan = coremltools.models.compute_plan.MLComputePlan.load_from_path(
            path=model.get_compiled_model_path(), compute_units=allowed
        )
        ports = model.get_spec().description
    except Exception as error:  # coremltools raises bare Exceptions
        raise UserError(f"{path.name}: Core ML cannot load it ({first_line(error)})") from error
    places = placement(plan)
    if not places[_PLACES[units]]:
        found = ", ".join(places) or "no device"
        raise UserError(f"{path.name}: Core ML would run nothing of it on {units}, but on {found}")
    engine = CoreMLEngine(model, ports)
    where = ", ".join(f"{count} on {place}" for place, count in sorted(places.items()))
    engine.name = f"{engine.name}; operations: {where}"
    return engine


def placement(plan: Any) -> Counter[str]:
    """Return how many operations of the main function Core ML prefers to run on each device."""
    places: Counter[str] = Counter()
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:  # constants run nowhere
            places[type(usage.preferred_compute_device).__name__] += 1
    return places
