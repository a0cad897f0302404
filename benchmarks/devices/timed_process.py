"""Devices whose inferences are timed in a process of their own on this machine.

Every file gets a fresh process (``benchmarks.devices.timing_worker``), so that files share no
threads, caches of a runtime or memory, and every start has addresses of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.devices.device import Timed, TimedDevice, Timing
from benchmarks.devices.timing_worker import Settings
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX

_WORKER = "benchmarks.devices.timing_worker"

# Threads of a runtime spin for a moment after an inference; the next file starts after that.
_SETTLE_SECONDS = 0.1


class ProcessTimedDevice(TimedDevice):
    """A device that an engine reaches from this machine.

    Attributes:
        engine: The engine; None for the default of a file's format.
        opener: Module with ``open_engine(path, threads, option)``, for what is no engine of
            ``runtime.engines``; None for those.
        option: What ``opener`` gets.
    """

    engine: str | None = None
    opener: str | None = None
    option: str = ""

    def machine(self) -> str:
        """Return the model of the processor and its instructions for low precision."""
        from benchmarks.environment import read_environment  # psutil, which bench alone needs

        return read_environment(0).processor

    def untimed(self, path: Path) -> str | None:
        """Return that the format does not run here, or not on this engine, or None."""
        kind = BY_SUFFIX.get(path.suffix.lower())
        if kind is None:
            return None  # opening it tells what is wrong
        if not kind.runs_here():
            return kind.not_run
        if self.engine is not None and self.engine not in kind.engines:
            return f"not run ({self.title} does not open {kind.title})"
        return None

    @contextmanager
    def opened(self, path: Path, timing: Timing) -> Iterator[Timed]:
        """Start the process, and kill it when the block ends."""
        settings = Settings(
            path=str(path),
            runtime=self.engine,
            threads=timing.threads,
            size=timing.size,
            warmup=timing.warmup,
            opener=self.opener,
            option=self.option,
        )
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-P", "-m", _WORKER, settings.to_json()]
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            ) as process,
        ):
            try:
                yield TimedProcess(path.name, process, errors)
            finally:
                process.kill()


class TimedProcess(Timed):
    """A running worker that has opened its file and warmed up.

    Raises:
        UserError: If it could not open the file.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], errors: IO[str]) -> None:
        self._name, self._process, self._errors = name, process, errors
        opened = self._reply()
        if "error" in opened:
            raise UserError(opened["error"])
        self.runtime: str = opened["runtime"]
        self.size: tuple[int, int] = (opened["size"][0], opened["size"][1])
        self.scale: int = opened["scale"]
        self.facts = {"opening_ms": opened["opening_ms"]}

    def time_one(self) -> float:
        """Return the milliseconds of one inference."""
        time.sleep(_SETTLE_SECONDS)
        assert self._process.stdin is not None
        # A worker that has died breaks the pipe; '_reply' reports the reason.
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
        return float(self._reply()) / 1e6

    def finish(self) -> Mapping[str, str | int | float]:
        """End the process and return its peak memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return {"peak_memory_bytes": int(self._reply())}

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
