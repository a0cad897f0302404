"""The way to a board with arm64 Linux: the user's own ``ssh``, keys and configuration."""

from __future__ import annotations

import shlex
import shutil
import subprocess

from benchmarks.devices.transport import ANSWER_SECONDS, Transport, answer_of

_CONNECT_SECONDS = 10
_UNREACHED = 255
"""ssh's own exit code if it does not get there."""


class Ssh(Transport):
    """A board by the name that ``ssh`` knows.

    Args:
        host: ``HOST``, ``USER@HOST`` or a name of the user's configuration.
    """

    folder = "/var/tmp"

    def __init__(self, host: str) -> None:
        self.host = host
        self.name = f"ssh:{host}"

    def missing(self) -> str | None:
        """Return that ssh or the board is missing, or it asks for a password, or None."""
        if shutil.which("ssh") is None:
            return "needs ssh: apt-get install openssh-client (Debian)"
        if not self.host or self.host.startswith("-"):
            return "needs a host, as in ssh:USER@HOST"
        try:
            run = answer_of(self.command("true"), ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            return f"gives no answer within {ANSWER_SECONDS:g} s"
        if run.returncode == 0:
            return None
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else f"code {run.returncode}"
        if run.returncode != _UNREACHED:
            return f"has no POSIX shell ({said})"
        return f"cannot be reached ({said}); 'ssh {self.host}' must work without a password"

    def command(self, line: str) -> list[str]:
        """Return ``ssh`` without a terminal and without questions, whatever the login's shell."""
        options = [
            "BatchMode=yes",
            f"ConnectTimeout={_CONNECT_SECONDS}",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
        ]
        return [
            "ssh",
            "-T",
            *(f"-o{one}" for one in options),
            self.host,
            shlex.join(["sh", "-c", line]),
        ]
