"""The contract of transports: how commands and files reach another machine, such as a phone.

Each has its own module and one line in ``benchmarks.devices.catalogue``. What runs there, and how
it is cleaned up, is the same for all (``benchmarks.devices.remote``).
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence

from runtime.errors import UserError

ANSWER_SECONDS = 60.0
"""How long a machine may take to answer a line."""


def answer_of(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program that asks nothing and return its code and what it printed.

    Raises:
        subprocess.TimeoutExpired: If it does not end within ``seconds``.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


class Transport(ABC):
    """A way to one machine with a POSIX shell.

    Attributes:
        name: Name of the device on the command line, for example ``android:SERIAL``.
        folder: Folder on the machine in which programs may be written and run.
    """

    name: str
    folder: str

    @abstractmethod
    def missing(self) -> str | None:
        """Return why the machine cannot be reached, with what to do, or None."""

    @abstractmethod
    def command(self, line: str) -> list[str]:
        """Return the program of this machine that runs a line in the shell of the other.

        Standard input, output and error are the line's own, byte by byte; its exit code is the
        program's. The line's input ends when the program ends, for whatever reason.
        """

    def ask(self, line: str) -> str:
        """Run a line and return what it printed.

        Raises:
            UserError: If it fails, or gives no answer within a minute.
        """
        try:
            run = answer_of(self.command(line), ANSWER_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{self.name}: no answer within {ANSWER_SECONDS:g} s") from error
        if run.returncode:
            raise UserError(f"{self.name}: {self.reason(run.returncode, run.stderr)}")
        return run.stdout

    def reason(self, code: int, said: str) -> str:
        """Return why a program of ``command`` failed: the way there, or what it said last."""
        missing = self.missing()
        if missing is not None:
            return f"lost on the way ({missing})"
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        full = next((line for line in lines if "No space left" in line), None)
        if full is not None:
            return f"no space left in {self.folder}; delete something there"
        return lines[-1] if lines else f"ended with code {code} without a word"
