"""This machine's CPU, on the runtime that reslite opens a format with: LiteRT or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

from benchmarks.devices.device import Execution, Subject, Takes, run_session
from benchmarks.devices.timed_process import ProcessTimedDevice
from runtime.formats import FORMATS
from runtime.session import FloatPicture


class CPU(ProcessTimedDevice):
    """The default device of ``reslite bench``."""

    name = "cpu"
    title = "CPU"
    evidence = "measured"
    takes = Takes(dict.fromkeys(FORMATS, ("float32", "float16", "int8")))

    def missing(self) -> str | None:
        """Return None: the runtimes come with reslite."""
        return None

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the runtimes."""
        from benchmarks.environment import package_versions

        found = package_versions()
        return {name: found[name] for name in ("ai-edge-litert", "onnxruntime") if name in found}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file on the default engine of its format."""
        name = FORMATS[subject.artifact.format].engines[0]
        engine = import_module(f"runtime.engines.{name}_engine").open_engine(subject.path, 1)
        return Execution(engine.name, run_session(engine, subject, pictures), self.versions())
