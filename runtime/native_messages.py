"""What native libraries write to the standard error by themselves, kept from the terminal.

LiteRT announces its delegates and libtiff complains about odd files on the file descriptor 2, past
``sys.stderr``, with no way to ask them not to.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

_STANDARD_ERROR = 2

# The descriptor belongs to the process: two redirections at once would not be undone in order.
_LOCK = Lock()


@contextmanager
def kept_messages() -> Iterator[list[str]]:
    """Redirect the standard error of the process while the block runs.

    Yields:
        A list that holds the lines that were written, once the block has ended, also by an
        exception. It stays empty, and nothing is redirected, in a process without a standard error.
    """
    lines: list[str] = []
    with _LOCK, tempfile.TemporaryFile() as kept:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            terminal = os.dup(_STANDARD_ERROR)
        except OSError:  # closed, as in some services
            yield lines
            return
        os.dup2(kept.fileno(), _STANDARD_ERROR)
        try:
            yield lines
        finally:
            os.dup2(terminal, _STANDARD_ERROR)
            os.close(terminal)
            kept.seek(0)
            lines += kept.read().decode(errors="replace").splitlines()


def write_messages(lines: list[str]) -> None:
    """Write lines to the standard error after all: those that are worth the user's attention."""
    if not lines:
        return
    with suppress(OSError):  # closed, as in some services
        os.write(_STANDARD_ERROR, ("\n".join(lines) + "\n").encode())
