"""Atomic writing of files: a reader never sees half a file.

A file (or a folder, for Core ML packages) is written beside its destination under a temporary name
and renamed at the end. If an exception, Ctrl-C or a full disk stops the writing, the temporary file
is removed and an earlier file stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import UserError


@contextmanager
def replacing(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``destination`` and move it there when the block succeeds.

    Args:
        destination: The file or folder to create or replace. Its parent is created if missing.

    Raises:
        UserError: If the folder cannot be written or the disk is full.
    """
    destination = Path(destination)
    temporary: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=_prefix(destination), dir=destination.parent)
        temporary = Path(folder) / destination.name
        yield temporary
        _move(temporary, destination)
    except OSError as error:
        reason = error.strerror or str(error)
        too_long = error.errno == errno.ENAMETOOLONG
        remedy = "a shorter name" if too_long else "another folder or free some space"
        raise UserError(f"{destination}: cannot be written ({reason}); choose {remedy}") from error
    finally:
        if temporary is not None:
            try:
                shutil.rmtree(temporary.parent, ignore_errors=True)
            except KeyboardInterrupt:
                shutil.rmtree(temporary.parent, ignore_errors=True)
                raise


def clear_unfinished(destination: Path) -> None:
    """Remove temporary files that killed writers of ``destination`` left; none may be running."""
    for folder in destination.parent.iterdir():
        if folder.name.startswith(_prefix(destination)) and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(destination: Path) -> str:
    # Shortened, because the temporary name is longer than the destination's and may be too long.
    return f".{destination.name[:32]}."


def _move(temporary: Path, destination: Path) -> None:
    """Rename; a folder replaces only a folder, and an old folder is restored if renaming fails."""
    if not (temporary.is_dir() and destination.is_dir()) or destination.is_symlink():
        temporary.replace(destination)
        return
    former = temporary.with_name(f"{temporary.name}.former")
    destination.rename(former)
    try:
        temporary.rename(destination)
    except BaseException:
        former.rename(destination)
        raise
