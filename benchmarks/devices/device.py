"""The contract of devices: a runtime and the processor that it runs the files of a bundle on.

Every device has its own module and one line in ``benchmarks.devices.catalogue``. The module may
import a runtime's library only inside functions: modules of devices are imported wherever devices
are listed, and by interpreters of their own in which only numpy is installed besides.
``benchmarks.devices.isolated`` runs ``Device.execute`` in a process of its own, with a time limit.

A device may compute pictures, count or estimate (``Device.execute``), or time inferences besides
(``TimedDevice.opened``). Every figure has its kind of evidence, and tables never mix kinds. A
device proves what it ran on or fails with the reason; a fallback never passes for the device.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.engines.engine import Engine
from runtime.formats import FORMATS, Format, Precision
from runtime.manifest import Artifact
from runtime.session import FloatPicture, Session
from runtime.sides import ANY_SIDES, Sides

Evidence = Literal["measured", "counted", "estimated", "compiled", "executed"]
"""What a figure rests on: a time on the named device; instructions counted; a vendor's cost model;
a compiler that took the file; outputs computed as the device computes them, without a time."""

Unit = Literal["ms", "instructions"]
"""What figures of speed count: milliseconds, or instructions of a processor."""


@dataclass(frozen=True)
class Subject:
    """A file to execute.

    Attributes:
        path: The file; for Core ML, a folder.
        artifact: Its entry in the manifest, with the picture tensors' names, layouts and scales.
        scale: Upscaling factor of the network.
        sides: The heights and widths that the network takes; pictures fit them.
    """

    path: Path
    artifact: Artifact
    scale: int
    sides: Sides = ANY_SIDES

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the input if the file fixes them."""
        return self.artifact.fixed_size


@dataclass(frozen=True)
class Takes:
    """The files that a device takes.

    Attributes:
        formats: Precisions by format.
        fixed_size: Whether it takes only files of one height and width.
        float_io: Whether it takes only files whose picture tensors are floats.
    """

    formats: Mapping[Format, tuple[Precision, ...]]
    fixed_size: bool = False
    float_io: bool = False


@dataclass(frozen=True)
class Execution:
    """What a device made of one file.

    Attributes:
        runtime: Library, version and what really ran the file, for example
            ``"LiteRT 2.3.0 GPU (Vulkan, SwiftShader)"``.
        outputs: The restored pictures, not clamped, in the order of the pictures; None where
            nothing was computed (compiled, estimated).
        versions: Version of each library, compiler or emulator that the result depends on.
        fallbacks: How often each operator did not run on the device; empty if all did, None if the
            runtime does not tell.
        facts: Further figures by name, such as instructions or partitions.
        settings: What a user sets to obtain this result; empty if nothing.
    """

    runtime: str
    outputs: tuple[FloatPicture, ...] | None
    versions: Mapping[str, str]
    fallbacks: Mapping[str, int] | None = None
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    settings: str = ""


class Device(ABC):
    """A runtime and the processor it runs on; instances are stateless.

    Attributes:
        name: Name on the command line, for example ``litert-gpu``.
        title: Name in tables.
        evidence: Kind of its results.
        takes: The files it takes.
        unit: Unit of what an inference costs, and name of the fact of an execution that holds it;
            None if executions tell no cost.
        time_limit: Seconds that one file may take, in everything.
        profile: Target profile that makes files for it, where it fails on files of the default.
    """

    name: str
    title: str
    evidence: Evidence = "executed"
    takes: Takes
    unit: Unit | None = None
    time_limit: float = 300.0
    profile: str | None = None

    @abstractmethod
    def missing(self) -> str | None:
        """Return what is missing on this machine, with the command that installs it, or None.

        For example ``"needs openvino: pip install 'reslite[openvino]'"``. Quick, and without
        loading the runtime.
        """

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Return what results depend on besides the file, by name; asked if nothing is missing.

        Quick, and without loading the runtime: a result is kept until a file or a version changes.
        """

    @abstractmethod
    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run a file on pictures; called in a process of its own, by ``interpreter``.

        Args:
            subject: The file.
            pictures: H × W × 3, float32, RGB in [0, 1], of the file's size if it is fixed.

        Raises:
            UserError: If the device refuses the file or did not run it itself. Any other exception,
                an abort of the process and silence beyond ``time_limit`` are reported likewise.
        """

    def interpreter(self) -> Path:
        """Return the Python that executes; it needs numpy and what ``execute`` imports."""
        return Path(sys.executable)

    def environment(self) -> Mapping[str, str]:
        """Return environment variables for the process that executes."""
        return {}

    def refusal(self, subject: Subject) -> str | None:
        """Return what a file lacks for this device, as in "not run (needs …)", or None."""
        artifact, takes = subject.artifact, self.takes
        if artifact.precision not in takes.formats.get(artifact.format, ()):
            return f"a file of another kind: {_kinds(takes)}"
        if takes.fixed_size and subject.fixed_size is None:
            return "a file of fixed size: reslite export --size 128x128"
        if takes.float_io and artifact.input.dtype not in ("float32", "float16"):
            return "a file with float input and output: reslite export --float-io"
        return None


@dataclass(frozen=True)
class Timing:
    """How the inferences of a file are timed.

    Attributes:
        size: Height and width of the input; None for the size that is restored to 1280 × 720. A
            file of fixed size keeps its size.
        threads: CPU threads.
        warmup: Inferences that are not timed, before the first that is.
    """

    size: tuple[int, int] | None
    threads: int
    warmup: int


class Timed(ABC):
    """A file that a device has opened and warmed up, ready to be timed.

    Attributes:
        runtime: Library, version and what really runs the file.
        size: Height and width of the input.
        scale: Upscaling factor.
        facts: What is known by now, for example ``opening_ms``.
    """

    runtime: str
    size: tuple[int, int]
    scale: int
    facts: Mapping[str, str | int | float]

    @abstractmethod
    def time_one(self) -> float:
        """Run one inference and return its milliseconds, without converting the picture.

        Raises:
            UserError: If the device fails; names the file and the reason.
        """

    @abstractmethod
    def finish(self) -> Mapping[str, str | int | float]:
        """End the measurement and return what is known only now, as ``peak_memory_bytes``.

        Raises:
            UserError: If the device fails.
        """


class TimedDevice(Device):
    """A device that times inferences; its times are *measured*, whatever ``execute`` gives.

    Attributes:
        here: Whether it is part of this machine, whose load then tells on its times.
    """

    here: bool = True

    @abstractmethod
    def machine(self) -> str:
        """Describe the processor, the phone or the card in a line, as tables and the store do."""

    @abstractmethod
    def untimed(self, path: Path) -> str | None:
        """Return why a file cannot be timed on this device, as "not run (needs macOS)", or None."""

    @abstractmethod
    def opened(self, path: Path, timing: Timing) -> AbstractContextManager[Timed]:
        """Open and warm up a file afresh, as a program that has just been started does.

        All is closed when the block ends, whatever happens in it.

        Raises:
            UserError: If the file cannot be opened or does not run on the device itself.
        """

    def close(self) -> None:
        """Give back what the device keeps from one file to the next, at the end of a run."""


def restored(
    function: Callable[[NDArray[Any]], NDArray[Any]],
    subject: Subject,
    pictures: Sequence[FloatPicture],
) -> tuple[FloatPicture, ...]:
    """Restore pictures with a runtime that is a function from the input tensor to the output.

    Args:
        function: Takes a contiguous array of the layout and type of ``subject.artifact.input`` and
            returns one of ``subject.artifact.output``, both 1 × ….
        subject: The file.
        pictures: H × W × 3, float32, RGB in [0, 1].

    Raises:
        UserError: If the function raises.
    """
    return run_session(_FunctionEngine(subject, function), subject, pictures)


def run_session(
    engine: Engine, subject: Subject, pictures: Sequence[FloatPicture]
) -> tuple[FloatPicture, ...]:
    """Restore pictures with an engine, which is closed; the session converts to and from tensors.

    Raises:
        UserError: If the engine does not take the pictures or fails.
    """
    with Session(subject.path.name, engine, subject.scale, sides=subject.sides) as session:
        return tuple(session.run(picture) for picture in pictures)


class _FunctionEngine(Engine):
    def __init__(self, subject: Subject, function: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        artifact = subject.artifact
        super().__init__("this runtime", (artifact.input,), (artifact.output,))
        self._function = function
        self._fed: NDArray[Any] | None = None
        self._made: NDArray[Any] | None = None

    def feed(self, name: str, array: NDArray[Any]) -> None:
        self._fed = array

    def invoke(self) -> None:
        assert self._fed is not None
        self._made = np.array(self._function(self._fed))

    def fetch(self, name: str) -> NDArray[Any]:
        assert self._made is not None
        return self._made

    def close(self) -> None:
        pass


def _kinds(takes: Takes) -> str:
    return " or ".join(
        f"{FORMATS[kind].title} in {', '.join(precisions)}"
        for kind, precisions in takes.formats.items()
    )
