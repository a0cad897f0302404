"""Another machine with an arm64 Linux or Android: a phone by ``adb``, a board by ``ssh``.

A folder is made there at the first file and holds the runner with its libraries
(``benchmarks.devices.remote_bundle``) and the files. A shell on the machine waits for the end of
its input and then deletes the folder: when this process ends, is killed or loses the machine, that
input ends, too. The runner is the one of this machine (``benchmarks.devices.timing_worker``).

A time of an emulated processor is no time of a phone: it is refused.
"""

from __future__ import annotations

import posixpath
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.devices.arm64_root import RUNTIMES, installed_versions, missing_programs
from benchmarks.devices.device import Execution, Subject, Takes, Timed, TimedDevice, Timing
from benchmarks.devices.remote_bundle import (
    LAUNCHER,
    RUNNER,
    add_file,
    write_bundle,
)
from benchmarks.devices.remote_state import PROBE, State, read_state
from benchmarks.devices.timed_process import TimedProcess
from benchmarks.devices.timing_worker import Settings
from benchmarks.devices.transport import Transport
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX, FORMATS
from runtime.manifest import MANIFEST
from runtime.session import FloatPicture

_CLOSE_SECONDS = 30.0


class RemoteDevice(TimedDevice):
    """A machine that a transport reaches; ``close`` deletes what was pushed.

    Args:
        transport: The way there.
    """

    evidence = "measured"
    takes = Takes(dict.fromkeys(("tflite", "onnx"), ("float32", "float16", "int8")))
    here = False

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.name = self.title = transport.name
        self._folder: RemoteFolder | None = None
        self._missing: tuple[str | None] | None = None
        self._state: State | None = None

    def missing(self) -> str | None:
        """Return that the machine cannot be reached or there is nothing to push; asked once."""
        if self._missing is None:
            self._missing = (self.transport.missing() or missing_programs(),)
        return self._missing[0]

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the runtimes that are pushed."""
        installed = installed_versions()
        return {title: installed[package] for title, package in RUNTIMES.items()}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Refuse: only times are taken there.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{self.name}: times alone are taken there ('reslite bench')")

    def machine(self) -> str:
        """Return the phone or the board, as it names itself."""
        return self.state().machine

    def state(self) -> State:
        """Return what the machine tells of itself, asked once.

        Raises:
            UserError: If it does not answer.
        """
        if self._state is None:
            self._state = self.ask_state()
        return self._state

    def ask_state(self) -> State:
        """Return what the machine tells of itself now.

        Raises:
            UserError: If it does not answer.
        """
        return read_state(self.transport.ask(PROBE))

    def untimed(self, path: Path) -> str | None:
        """Return that the format does not run there, or the processor is emulated, or None."""
        kind = BY_SUFFIX.get(path.suffix.lower())
        if kind is None:
            return None  # opening it tells what is wrong
        if kind not in [FORMATS[name] for name in self.takes.formats]:
            return f"not run ({self.name} does not open {kind.title})"
        try:
            emulated = self.state().emulated
        except UserError as error:
            return f"not run ({error})"
        return None if emulated is None else f"not run ({_no_time(self.name, emulated)})"

    @contextmanager
    def opened(self, path: Path, timing: Timing) -> Iterator[Timed]:
        """Start the runner on the machine; it ends with the block."""
        if not path.exists():
            raise UserError(f"{path}: no such file; 'reslite export' makes one")
        state = self.ask_state()
        if state.emulated is not None and not state.qemu:
            raise UserError(f"{self.name}: needs an arm64 processor, but {state.emulated}")
        if self._folder is None:
            self._folder = RemoteFolder(self.transport, state.emulated is not None)
        settings = Settings(
            path=self._folder.file(path),
            runtime=None,
            threads=timing.threads,
            size=timing.size,
            warmup=timing.warmup,
        )
        command = self.transport.command(self._folder.python("-m", RUNNER, settings.to_json()))
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            ) as process,
        ):
            try:
                yield RemoteTimed(path.name, process, errors, self, state)
            finally:
                process.kill()

    def close(self) -> None:
        """Delete what was pushed."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()


class RemoteTimed(TimedProcess):
    """A runner on another machine that has opened its file and warmed up.

    Raises:
        UserError: If it could not open the file, or the machine was lost.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        errors: IO[str],
        device: RemoteDevice,
        state: State,
    ) -> None:
        self._device, self._emulated = device, state.emulated
        super().__init__(name, process, errors)
        self.facts = {**state.facts, "python": installed_versions()["Python"], **self.facts}
        if state.emulated is not None:
            self.runtime = f"{self.runtime} (emulated: {state.emulated})"

    def time_one(self) -> float:
        """Return the milliseconds of one inference.

        Raises:
            UserError: If the machine was lost, or its processor is emulated.
        """
        if self._emulated is not None:
            raise UserError(_no_time(self._device.name, self._emulated))
        return super().time_one()

    def finish(self) -> Mapping[str, str | int | float]:
        """End the runner and return its peak memory and the temperature that it leaves."""
        found = super().finish()
        facts = self._device.ask_state().facts
        names = ("thermal_state", "hottest_celsius", "battery_celsius")
        return {**found, **{f"{name}_after": facts[name] for name in names if name in facts}}

    def _reply(self) -> Any:
        try:
            return super()._reply()
        except UserError as error:
            lost = self._device.transport.missing()
            if lost is None:
                raise
            raise UserError(f"{self._name}: {self._device.name} was lost meanwhile ({lost})") from (
                error
            )


class RemoteFolder:
    """The runner's folder on another machine, which deletes itself when this process is gone.

    Args:
        transport: The way there.
        emulated: Whether QEMU of that machine runs the programs.

    Raises:
        UserError: If the folder cannot be made or filled; nothing is left of it.
    """

    def __init__(self, transport: Transport, emulated: bool) -> None:
        self._transport = transport
        self._files: dict[Path, str] = {}
        pattern = shlex.quote(posixpath.join(transport.folder, "reslite-XXXXXX"))
        # Losing the machine sends a hangup, which must not end the shell before it has deleted.
        line = (
            f"trap '' HUP INT TERM PIPE; folder=$(mktemp -d {pattern}) && echo \"$folder\" && "
            'cat >/dev/null; rm -rf "$folder"'
        )
        self._keeper = subprocess.Popen(
            transport.command(line),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends its input
        )
        assert self._keeper.stdout is not None
        self.path = self._keeper.stdout.readline().decode(errors="replace").strip()
        try:
            if not self.path.startswith(transport.folder):
                reason = transport.reason(self._keeper.wait(_CLOSE_SECONDS), self.path)
                raise UserError(f"{transport.name}: {reason}")
            self._push(lambda stream: write_bundle(stream, emulated))
        except BaseException:
            self.close()
            raise

    def file(self, path: Path) -> str:
        """Push a file, with the manifest beside it, unless it is there; return its path there."""
        path = path.resolve()
        if path not in self._files:
            folder = f"files/{len(self._files)}"
            for one in (path, path.with_name(MANIFEST)):
                if one.exists():
                    self._push(add_file(one, f"{folder}/{one.name}"))
            self._files[path] = posixpath.join(self.path, folder, path.name)
        return self._files[path]

    def python(self, *arguments: str) -> str:
        """Return the line that runs the folder's Python, in the folder."""
        launcher = posixpath.join(self.path, LAUNCHER)
        return f"cd {shlex.quote(self.path)} && exec {shlex.join(['sh', launcher, *arguments])}"

    def close(self) -> None:
        """Delete the folder; if the machine is lost, its own shell does."""
        assert self._keeper.stdin is not None
        with suppress(BrokenPipeError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        assert self._keeper.stdout is not None
        self._keeper.stdout.close()

    def _push(self, write: Callable[[IO[bytes]], None]) -> None:
        """Unpack a tar archive in the folder.

        Raises:
            UserError: If the machine has no space for it, or was lost.
        """
        command = self._transport.command(f"tar -x -C {shlex.quote(self.path)} -f -")
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
            ) as process,
        ):
            assert process.stdin is not None
            try:
                # A program that has ended breaks the pipe; its code and words tell why.
                with suppress(BrokenPipeError), process.stdin:
                    write(process.stdin)
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            said.seek(0)
            if code:
                reason = self._transport.reason(code, said.read())
                raise UserError(f"{self._transport.name}: {reason}")


def _no_time(name: str, emulated: str) -> str:
    return f"{name} is emulated, for {emulated}: its time is no phone's"
