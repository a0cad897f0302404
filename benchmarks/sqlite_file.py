"""Opening SQLite files that several processes write to at once, and reading those on any disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RETRY = 0.05


def opened(path: Path, application: int, *, write: bool, patience: float) -> sqlite3.Connection:
    """Open a file, for writing with its folder, and write ahead if it is ours or new.

    Args:
        path: The file.
        application: Our number in the file's header (``PRAGMA application_id``).
        write: Whether to write; without, a file on a read-only disk can be read.
        patience: Seconds to wait for other processes that hold the file.

    Raises:
        sqlite3.Error: If it cannot be opened, or is no SQLite file.
        OSError: If its folder cannot be made.
    """
    if not write:
        return _opened_to_read(path, patience)
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=patience, isolation_level=None)
    try:
        # Checked first: a file that is not ours keeps its journal mode.
        owner = int(database.execute("PRAGMA application_id").fetchone()[0])
        empty = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner == application or empty:
            _write_ahead(database, patience)
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        database.close()
        raise
    return database


def _opened_to_read(path: Path, patience: float) -> sqlite3.Connection:
    """Open a store for reading, even on a disk where SQLite cannot make its files beside it."""
    uri = path.resolve().as_uri()
    database = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=patience, isolation_level=None)
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        database.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        return sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return database


def _write_ahead(database: sqlite3.Connection, patience: float) -> None:
    """Switch to write-ahead logging; SQLite does not wait for others by itself here."""
    deadline = time.monotonic() + patience
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY)


@contextmanager
def transaction(database: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Do everything in the block or nothing.

    Raises:
        sqlite3.OperationalError: If another process holds the file for longer than the patience.
    """
    database.execute(begin)
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


@contextmanager
def nested_transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Be part of the transaction that is open, or else open one."""
    if database.in_transaction:
        yield
        return
    with transaction(database):
        yield


def is_locked(error: sqlite3.OperationalError) -> bool:
    """Tell whether another process holds the file."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
