"""Latency and memory of a set of artifacts on this machine's CPU.

The artifacts are timed in turn, round after round (A B C A B C …), so that other load on the
machine affects all of them alike; ratios are taken within each round. Every artifact runs in a
fresh process (``benchmarks.devices.worker``). A latency is the time of one inference, without
reading, writing or converting pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from benchmarks.devices.worker import Settings
from benchmarks.environment import Environment, read_environment
from benchmarks.report.tables import text_table
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX, FORMATS
from runtime.manifest import HD, Manifest
from runtime.opening import available_cores

# Threads of a runtime spin for a moment after an inference; the next artifact starts after that.
_SETTLE_SECONDS = 0.1


@dataclass(frozen=True)
class Contender:
    """An artifact to time on a runtime.

    Attributes:
        file: Name of the artifact in the results.
        path: The file, or the folder of a Core ML package.
        runtime: Runtime to use, or None for the default of its format.
        multadds: MultAdds of its network at a 1280 × 720 output, if known.
    """

    file: str
    path: Path
    runtime: str | None = None
    multadds: int | None = None

    @property
    def name(self) -> str:
        """Name in the results: the artifact, and the runtime unless it is the default."""
        return self.file if self.runtime is None else f"{self.file} ({self.runtime})"


@dataclass(frozen=True)
class Spread:
    """The middle half of a sample.

    Attributes:
        median: The median.
        lower: The first quartile.
        upper: The third quartile.
    """

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return median and quartiles, interpolated linearly."""
        lower, median, upper = np.percentile(values, [25, 50, 75])
        return cls(float(median), float(lower), float(upper))

    @property
    def iqr(self) -> float:
        """The interquartile range."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Latency:
    """The measurements of one artifact; if it could not run here, only its names and the reason.

    Attributes:
        name: Name of the contender.
        file: The contender's artifact.
        chosen_runtime: The runtime that the contender names; None for the default.
        runtime: Runtime, version and device that executed the artifact.
        size: Height and width of the input.
        milliseconds: Latency of one inference.
        samples_ms: Every timed inference, in order.
        multadds_per_second: Effective rate: MultAdds of the source network at this size, not of the
            lowered file, divided by the median latency.
        peak_memory_bytes: Peak memory of the whole process.
        opening_ms: Milliseconds that opening the artifact takes, its file in the system's cache.
        speedup: How many times faster than the reference, from the ratio within each round; None
            if the reference's input has another size.
        not_run: Reason for missing figures.
    """

    name: str
    file: str
    chosen_runtime: str | None = None
    runtime: str | None = None
    size: tuple[int, int] | None = None
    milliseconds: Spread | None = None
    samples_ms: tuple[float, ...] = ()
    multadds_per_second: float | None = None
    peak_memory_bytes: int | None = None
    opening_ms: float | None = None
    speedup: Spread | None = None
    not_run: str | None = None


@dataclass(frozen=True)
class LatencyReport:
    """Latencies from one interleaved run.

    Attributes:
        environment: The machine, read before the run.
        threads: CPU threads of each artifact.
        rounds: Timed inferences of each artifact.
        warmup: Untimed inferences of each artifact before the rounds.
        reference: Name of the contender that ``speedup`` compares with, or None.
        rows: Measurements in the order of the contenders.
    """

    environment: Environment
    threads: int
    rounds: int
    warmup: int
    reference: str | None
    rows: tuple[Latency, ...]

    def row(self, file: str, runtime: str | None = None) -> Latency | None:
        """Return the row of an artifact on a runtime (None for the default), or None."""
        wanted = (file, runtime)
        return next((r for r in self.rows if (r.file, r.chosen_runtime) == wanted), None)


def contenders_of(folder: Path, manifest: Manifest, openvino: bool = False) -> list[Contender]:
    """Return the artifacts of a bundle as contenders, on request also ONNX files on OpenVINO."""
    found = []
    for artifact in manifest.artifacts:
        if artifact.pooling is not None:
            continue  # It restores tiles in two passes; the latency of one pass would mislead.
        path = folder / artifact.file
        found.append(Contender(artifact.file, path, None, artifact.multadds))
        if openvino and "openvino" in FORMATS[artifact.format].engines:
            found.append(Contender(artifact.file, path, "openvino", artifact.multadds))
    return found


def measure_latency(
    contenders: Sequence[Contender],
    *,
    reference: str | None = None,
    rounds: int = 20,
    warmup: int = 3,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = False,
) -> LatencyReport:
    """Time artifacts in interleaved rounds.

    Args:
        contenders: The artifacts to time, each with a unique name.
        reference: Name of the contender that the others are compared with.
        rounds: Timed inferences of each artifact.
        warmup: Untimed inferences of each artifact before the rounds.
        threads: CPU threads for each artifact; None for every available core.
        size: Height and width of the input; None for the size that is restored to 1280 × 720. An
            artifact of fixed size keeps its size.
        progress: Whether to show a progress bar (never when stderr is no terminal).

    Raises:
        UserError: If an artifact cannot be opened or its process dies, if two share a name, or if
            the reference cannot run here.
    """
    runnable = [one for one in contenders if _obstacle(one) is None]
    _check(contenders, runnable, reference, rounds)
    threads = threads or available_cores()
    environment = read_environment()
    samples: dict[str, list[float]] = {one.name: [] for one in runnable}
    with ExitStack() as stack:
        workers = {}
        for one in runnable:
            settings = Settings(str(one.path), one.runtime, threads, size, warmup)
            workers[one.name] = stack.enter_context(_started(one.name, settings))
        for _ in tqdm(range(rounds), unit="round", leave=False, disable=None if progress else True):
            for name, worker in workers.items():
                samples[name].append(worker.time_one())
        peaks = {name: worker.finish() for name, worker in workers.items()}
        base_size = workers[reference].size if reference is not None else None
    base = samples[reference] if reference is not None else None
    rows = []
    for one in contenders:
        if one.name not in workers:
            rows.append(Latency(one.name, one.file, one.runtime, not_run=_obstacle(one)))
            continue
        worker, times = workers[one.name], samples[one.name]
        milliseconds = Spread.of(times)
        rows.append(
            Latency(
                name=one.name,
                file=one.file,
                chosen_runtime=one.runtime,
                runtime=worker.runtime,
                size=worker.size,
                milliseconds=milliseconds,
                samples_ms=tuple(times),
                multadds_per_second=_rate(one, worker, milliseconds.median),
                peak_memory_bytes=peaks[one.name],
                opening_ms=worker.opening_ms,
                speedup=_speedup(base, times) if worker.size == base_size else None,
            )
        )
    return LatencyReport(environment, threads, rounds, warmup, reference, tuple(rows))


def latency_table(report: LatencyReport) -> str:
    """Return the report as text: the machine, and one line for each artifact."""
    machine = report.environment
    lines = [
        f"{machine.cpu} ({', '.join(machine.simd) or 'no low-precision instructions'}), "
        f"threads: {report.threads} of {machine.available}, "
        f"interleaved rounds: {report.rounds}",
    ]
    if not machine.quiet:
        lines.append(
            f"Warning: {machine.other_load:.0%} of the processor was busy with something else; "
            "these latencies are not to be trusted."
        )
    header = ["artifact", "input", "median ms", "IQR ms", "GMultAdds/s", "peak MB", "opening ms"]
    if report.reference is not None:
        header.append("speedup")
    rows = [_cells(row, report.reference is not None) for row in report.rows]
    lines.append(text_table(header, rows))
    if report.reference is not None:
        lines.append(f"speedup: against {report.reference}, median ratio of a round (quartiles)")
    return "\n".join(lines)


def _cells(row: Latency, compared: bool) -> list[str]:
    if row.milliseconds is None or row.size is None or row.peak_memory_bytes is None:
        return [row.name, "", row.not_run or "", "", "", "", "", *([""] if compared else [])]
    rate, ratio = row.multadds_per_second, row.speedup
    cells = [
        row.name,
        f"{row.size[0]}×{row.size[1]}",
        f"{row.milliseconds.median:.2f}",
        f"{row.milliseconds.iqr:.2f}",
        "" if rate is None else f"{rate / 1e9:.1f}",
        f"{row.peak_memory_bytes / 1e6:.0f}",
        "" if row.opening_ms is None else f"{row.opening_ms:.0f}",
    ]
    if ratio is not None:
        cells.append(f"{ratio.median:.2f}× ({ratio.lower:.2f}–{ratio.upper:.2f})")
    elif compared:
        cells.append("")  # inputs of different sizes cannot be compared
    return cells


def _speedup(reference: Sequence[float] | None, times: Sequence[float]) -> Spread | None:
    if reference is None:
        return None
    return Spread.of([other / own for other, own in zip(reference, times, strict=True)])


def _obstacle(contender: Contender) -> str | None:
    """Return why ``contender`` cannot run on this machine, or None."""
    kind = BY_SUFFIX.get(contender.path.suffix)
    return kind.not_run if kind and not kind.runs_here() else None


def _check(
    contenders: Sequence[Contender],
    runnable: Sequence[Contender],
    reference: str | None,
    rounds: int,
) -> None:
    names = [one.name for one in contenders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: given twice; time each artifact once")
    if rounds < 1:
        raise UserError(f"{rounds} rounds requested; choose 1 or more, 20 for example")
    known = [one.name for one in runnable]
    if reference is not None and reference not in known:
        raise UserError(f"{reference}: cannot run here; choose one of {', '.join(known)}")


def _rate(contender: Contender, worker: _Worker, milliseconds: float) -> float | None:
    if contender.multadds is None:
        return None
    pixels = worker.size[0] * worker.size[1] * worker.scale**2
    return contender.multadds * pixels / (HD[0] * HD[1]) / (milliseconds / 1000)


@contextmanager
def _started(name: str, settings: Settings) -> Iterator[_Worker]:
    """Start a worker, and kill it when the block ends."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.devices.worker", settings.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        ) as process,
    ):
        try:
            yield _Worker(name, process, errors)
        finally:
            process.kill()


class _Worker:
    """A running ``benchmarks.devices.worker`` that has opened its artifact and warmed up."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], errors: IO[str]) -> None:
        self._name, self._process, self._errors = name, process, errors
        opened = self._reply()
        if "error" in opened:
            raise UserError(opened["error"])
        self.runtime: str = opened["runtime"]
        self.size: tuple[int, int] = (opened["size"][0], opened["size"][1])
        self.scale: int = opened["scale"]
        self.opening_ms: float = opened["opening_ms"]

    def time_one(self) -> float:
        """Return the milliseconds of one inference."""
        time.sleep(_SETTLE_SECONDS)
        assert self._process.stdin is not None
        # A worker that has died breaks the pipe; '_reply' reports the reason.
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
        return float(self._reply()) / 1e6

    def finish(self) -> int:
        """End the process and return its peak memory in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return int(self._reply())

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        reason = said[-1] if said else "silently; is there enough memory? Try a smaller --size"
        raise UserError(f"{self._name}: its process ended with code {code} ({reason})")
