"""The folder of a run, which one process at a time trains into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from runtime.atomic import clear_unfinished
from runtime.errors import UserError

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
WEIGHTS = "weights.safetensors"
_LOCK = ".lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, and remove a killed process's unfinished files.

    The operating system holds the lock and releases it when the process ends, even by a crash.

    Raises:
        UserError: If another process trains into the folder, or the folder cannot be written.
    """
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"{folder}: another process is training into it; let it end, stop it or choose "
            "another --out"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder}: cannot be written ({reason}); choose another --out") from error
    try:
        clear_unfinished(folder / CHECKPOINT)
        clear_unfinished(folder / PREVIOUS)
        clear_unfinished(folder / WEIGHTS)
        yield
    finally:
        lock.release()
        if [path.name for path in folder.iterdir()] == [_LOCK]:  # nothing came of the run
            (folder / _LOCK).unlink()
            folder.rmdir()
