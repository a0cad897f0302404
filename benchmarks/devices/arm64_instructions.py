"""Instructions of one inference on an arm64 processor, by kind: its cost on phones, counted.

QEMU counts with a plugin (``arm64_instructions.c``), which is compiled at its first use. The count
repeats to 0.1 %; it is no time, for processors differ in how many they execute at once and wait for
memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.devices.arm64 import Arm64, arm64_versions, open_on_arm64
from benchmarks.devices.arm64_root import QEMU, qemu_version
from benchmarks.devices.device import Execution, Subject
from runtime.cache import cache_folder
from runtime.errors import UserError
from runtime.native_messages import kept_messages
from runtime.session import FloatPicture, Session

SIDE = 64
"""Height and width of the counted picture, unless the file fixes others."""

_SOURCE = Path(__file__).with_name("arm64_instructions.c")
_REQUEST = 0x5250
_REPLY = re.compile(r"reslite-instructions (.+)")
_LAST_QEMU = 8


class Arm64Instructions(Arm64):
    """Counts instead of pictures; nothing is timed."""

    name = "arm64-instructions"
    title = "arm64 instructions"
    evidence = "counted"
    unit = "instructions"

    def missing(self) -> str | None:
        """Return what is missing: what ``arm64`` needs, a compiler of C, or another QEMU."""
        if (found := super().missing()) is not None:
            return found
        if shutil.which("cc") is None:
            return "needs a compiler of C for QEMU's plugin: apt-get install gcc libc6-dev (Debian)"
        version = qemu_version()
        if version.split(".")[0].isdigit() and int(version.split(".")[0]) > _LAST_QEMU:
            return f"needs QEMU 7 or 8: apt-get install qemu-user of Debian 12 ({version} found)"
        return None

    def environment(self) -> Mapping[str, str]:
        """Return the variables of ``arm64`` and the one by which QEMU finds the plugin."""
        return {**super().environment(), "QEMU_PLUGIN": f"file={plugin()}"}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Count one inference after another that is not counted; the pictures are not used.

        Raises:
            UserError: If the plugin does not answer, or the file does not run on arm64.
        """
        engine = open_on_arm64(subject)
        size = subject.fixed_size or (SIDE, SIDE)
        picture = np.random.default_rng(0).random((*size, 3), np.float32)
        with Session(subject.path.name, engine, subject.scale, sides=subject.sides) as session:
            session.run(picture)
            session.prepare(picture)
            before = _counts()
            session.invoke()
            after = _counts()
        spent = {kind: after[kind] - before[kind] for kind in after}
        total = sum(spent.values())
        return Execution(
            engine.name,
            None,
            arm64_versions(),
            facts={"size": f"{size[0]}×{size[1]}", "instructions": total, **spent},
        )


def plugin() -> Path:
    """Return the compiled plugin, compiling it at first.

    Raises:
        UserError: If it cannot be compiled.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    path = cache_folder() / f"arm64_instructions_{digest}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(f".{os.getpid()}")
    command = ["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command += ["-fvisibility=hidden", "-o", str(made), str(_SOURCE)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        said = run.stderr.strip().splitlines()
        raise UserError(f"{_SOURCE.name} cannot be compiled ({said[-1] if said else 'no message'})")
    made.replace(path)
    return path


def _counts() -> dict[str, int]:
    """Return the instructions of this process until now, by kind.

    Raises:
        UserError: If no plugin answers.
    """
    with kept_messages() as said, suppress(OSError):
        os.getpriority(_REQUEST, 0)
    found = next((match for line in said if (match := _REPLY.search(line))), None)
    if found is None:
        raise UserError(f"{QEMU} does not count: its plugin gave no answer")
    pairs = (word.split("=") for word in found[1].split())
    return {kind.replace("_", " "): int(count) for kind, count in pairs}
