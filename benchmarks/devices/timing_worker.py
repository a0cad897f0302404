"""The process that times one artifact: opens it, warms up, and times one inference per request.

``benchmarks.devices.timed_process`` starts a worker for every artifact, so that artifacts share no
threads, caches of a runtime or memory, and peak memory is measured for each. The picture's
conversion to and from tensors is not timed.

Protocol, lines of JSON: the only argument holds the settings; the first reply describes the session
or an error; every line on the standard input requests one inference and is answered with its
nanoseconds; the end of the input is answered with the peak memory in bytes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TextIO

import numpy as np

import runtime
from runtime.errors import UserError
from runtime.manifest import HD, MANIFEST, read_manifest, verify
from runtime.records import from_json, to_json
from runtime.session import Session

_OPENINGS = 2


@dataclass(frozen=True)
class Settings:
    """The artifact to time and how.

    Attributes:
        path: The artifact.
        runtime: Runtime to use, or None for the default.
        threads: CPU threads.
        size: Height and width of the input; None for the size that is restored to 1280 × 720.
        warmup: Untimed inferences before the first request.
        opener: Module with ``open_engine(path, threads, option)`` to open it with; None for the
            runtime.
        option: What ``opener`` gets.
    """

    path: str
    runtime: str | None
    threads: int
    size: tuple[int, int] | None
    warmup: int
    opener: str | None = None
    option: str = ""

    def to_json(self) -> str:
        """Return the settings as the worker's argument."""
        return json.dumps(to_json(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read the worker's argument."""
        return from_json(cls, json.loads(text))


def main(argument: str, requests: TextIO, replies: TextIO) -> None:
    """Answer requests until they end."""

    def reply(content: object) -> None:
        print(json.dumps(content), file=replies, flush=True)

    settings = Settings.from_json(argument)
    try:
        session, opening = _opened(settings)
        size = input_size(session, settings.size)
        session.prepare(np.random.default_rng(0).random((*size, 3), np.float32))
    except UserError as error:
        reply({"error": str(error)})
        return
    with session:
        for _ in range(settings.warmup):
            session.invoke()
        reply(
            {
                "runtime": session.runtime_name,
                "size": size,
                "scale": session.scale,
                "opening_ms": opening,
            }
        )
        for _ in requests:
            start = time.perf_counter_ns()
            session.invoke()
            reply(time.perf_counter_ns() - start)
    reply(peak_memory())


def _opened(settings: Settings) -> tuple[Session, float]:
    """Open the artifact several times; return it and the median milliseconds of an opening.

    The first opening is not counted: it loads the runtime's library and the file from disk; nor is
    the comparison with the manifest.

    Raises:
        UserError: If it cannot be opened, or is not the file of the manifest.
    """
    path = Path(settings.path)
    manifest = read_manifest(path.parent)
    artifact = manifest.artifact(path.name) if manifest else None
    if artifact is not None and path.exists():
        verify(path, artifact)
    times = []
    for _ in range(_OPENINGS):
        start = time.perf_counter_ns()
        session = _session(settings)
        times.append((time.perf_counter_ns() - start) / 1e6)
        if len(times) < _OPENINGS:
            session.close()
    return session, statistics.median(times[1:])


def _session(settings: Settings) -> Session:
    """Open the artifact once.

    Raises:
        UserError: If it cannot be opened, or is to be opened by a module and has no manifest.
    """
    if settings.opener is None:
        return runtime.open(
            settings.path, verify=False, runtime=settings.runtime, threads=settings.threads
        )
    path = Path(settings.path)
    manifest = read_manifest(path.parent)
    artifact = manifest.artifact(path.name) if manifest else None
    if manifest is None or artifact is None:
        raise UserError(f"{path}: needs the {MANIFEST} that reslite wrote beside the file")
    module = import_module(settings.opener)
    engine = module.open_engine(path, settings.threads, settings.option)
    return Session(path.name, engine, manifest.scale, manifest.halo, sides=manifest.sides)


def input_size(session: Session, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of the input: the fixed size, ``wanted``, or 720p / scale."""
    return session.fixed_size or wanted or (HD[1] // session.scale, HD[0] // session.scale)


def peak_memory() -> int:
    """Return the largest resident set this process ever had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, whose maximum includes that of the parent process on Linux.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    # Runtimes may write to file descriptor 1, so the replies get a separate descriptor.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as own_output:
        os.dup2(2, 1)
        main(sys.argv[1], sys.stdin, own_output)
