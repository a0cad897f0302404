"""Executing a file on a device in a process of its own, ended after the device's time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from benchmarks.devices.device import Device, Execution, Subject
from benchmarks.devices.execution import (
    OUTPUTS,
    PICTURES,
    REPLY,
    REQUEST,
    Reply,
    Request,
    read_pictures,
    write_pictures,
)
from runtime.errors import UserError
from runtime.records import from_json, to_json
from runtime.session import FloatPicture

CATALOGUE = "benchmarks.devices.catalogue"

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("runtime", "benchmarks")
"""What an interpreter of its own sees of reslite."""
_MOST_MESSAGE = 300


def execute_isolated(
    device: Device,
    subject: Subject,
    pictures: Sequence[FloatPicture],
    *,
    catalogue: str = CATALOGUE,
) -> Execution:
    """Execute a file on a device.

    Args:
        device: The device; nothing of it is missing.
        subject: A file that it takes.
        pictures: H × W × 3, float32, RGB in [0, 1].
        catalogue: Module whose ``DEVICES`` holds the device under its name.

    Raises:
        UserError: If the device fails, its process ends without a reply, or it gives none within
            ``device.time_limit`` seconds; its process and all that this started are ended.
    """
    request = Request(
        catalogue=catalogue,
        device=device.name,
        path=str(subject.path.resolve()),
        artifact=subject.artifact,
        scale=subject.scale,
        sides=subject.sides,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / REQUEST).write_text(json.dumps(to_json(request)), encoding="utf-8")
        write_pictures(folder / PICTURES, tuple(pictures))
        said = folder / "said.txt"
        code = _run(device, folder, said)
        if not (folder / REPLY).exists():
            raise UserError(_ended(code, said))
        reply = from_json(Reply, json.loads((folder / REPLY).read_text(encoding="utf-8")))
        if reply.execution is None:
            raise UserError(_shortened(reply.error or "no reason given"))
        if reply.outputs is None:
            return reply.execution
        outputs = read_pictures(folder / OUTPUTS)
    if len(outputs) != len(pictures):
        raise UserError(f"{len(outputs)} pictures returned, {len(pictures)} expected")
    return replace(reply.execution, outputs=outputs)


def _run(device: Device, folder: Path, said: Path) -> int:
    """Run the process, with its output in ``said``, and return its exit code.

    Raises:
        UserError: If it does not end in time, or its interpreter cannot be started.
    """
    command = [str(device.interpreter()), "-P", "-m", "benchmarks.devices.execution", str(folder)]
    paths = [_packages_for(device, folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        **device.environment(),
    }
    with said.open("wb") as stream:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"{command[0]} cannot be started ({error.strerror})") from error
        try:
            return process.wait(device.time_limit)
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"no result within {device.time_limit:g} s; its process was ended"
            ) from error
        finally:
            _end(process)


def _packages_for(device: Device, folder: Path) -> str:
    """Return the folder that the interpreter imports reslite from.

    Beside an installed reslite lie the libraries of this interpreter, which must not come before
    those of another; that one sees links to the packages alone.
    """
    if device.interpreter() == Path(sys.executable):
        return str(_ROOT)
    links = folder / "packages"
    links.mkdir()
    for package in _PACKAGES:
        (links / package).symlink_to(_ROOT / package)
    return str(links)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ended(code: int, said: Path) -> str:
    """Return why there is no reply: how the process ended and the last line it wrote."""
    lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = _shortened(lines[-1].strip()) if lines else "without a word"
    how = f"with {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return f"its process ended {how} ({last})"


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_MESSAGE else f"{text[: _MOST_MESSAGE - 1]}…"
