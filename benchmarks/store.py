"""The store of measurements: one SQLite file, to which every sample is written when it is taken.

Each sample is a transaction of its own, so that a process that is killed loses at most the sample
it is taking. Several processes may write to one store at once. A store of an older schema is
migrated step by step when it is opened; one of a newer schema is refused and left as it is.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.measurement import Measurement, check_samples
from benchmarks.sqlite_file import is_locked, nested_transaction, opened, transaction
from runtime.errors import UserError
from runtime.records import RecordError, from_json, to_json

FILE = "results.sqlite"

_APPLICATION = 0x52534C54  # "RSLT", by which a store is told from other SQLite files
_PATIENCE = 30.0  # seconds; another process holds the file for one sample at a time

_STEPS: tuple[str, ...] = (
    """
    CREATE TABLE measurement (
        id INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        block INTEGER NOT NULL,
        "order" INTEGER NOT NULL,
        start INTEGER NOT NULL,
        role TEXT NOT NULL,
        file TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        format TEXT NOT NULL,
        precision TEXT NOT NULL,
        network TEXT NOT NULL,
        scale INTEGER NOT NULL,
        height INTEGER NOT NULL,
        width INTEGER NOT NULL,
        device TEXT NOT NULL,
        machine TEXT NOT NULL,
        evidence TEXT NOT NULL,
        runtime TEXT NOT NULL,
        "when" TEXT NOT NULL,
        unit TEXT NOT NULL,
        threads INTEGER,
        load REAL,
        multadds INTEGER,
        versions TEXT NOT NULL,
        facts TEXT NOT NULL,
        UNIQUE (run, block, "order")
    );
    CREATE TABLE sample (
        measurement INTEGER NOT NULL REFERENCES measurement (id) ON DELETE CASCADE,
        round INTEGER NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (measurement, round)
    ) WITHOUT ROWID;
    """,
)
"""Step n makes schema n + 1 of schema n; schema 0 is an empty file."""

_COLUMNS = (
    *("run", "block", "order", "start", "role", "file", "sha256", "format", "precision"),
    *("network", "scale", "height", "width", "device", "machine", "evidence", "runtime", "when"),
    *("unit", "threads", "load", "multadds", "versions", "facts"),
)
_QUOTED = ", ".join(f'"{name}"' for name in _COLUMNS)


def default_store() -> Path:
    """Return the user's store: ``RESLITE_STORE``, or a file in the user's folder for data."""
    chosen = os.environ.get("RESLITE_STORE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "reslite" / FILE


class Store:
    """An open store; a context manager, which closes it.

    Args:
        path: The file. With its folder, it is made if it does not exist and ``write`` is given.
        write: Whether to write to it; without, a store on a read-only disk can be read.
        patience: Seconds to wait for other processes that hold the file.

    Raises:
        UserError: If the file cannot be opened or written, is no store, is damaged, is of a newer
            schema, or stays locked; nothing in it is changed.
    """

    def __init__(self, path: Path, *, write: bool = True, patience: float = _PATIENCE) -> None:
        self.path, self._patience = path, patience
        if not write and not path.exists():
            raise UserError(f"{path}: no such store; 'reslite bench FILES' makes it")
        with self._told():
            self._database = opened(path, _APPLICATION, write=write, patience=patience)
        try:
            with self._told():
                self._prepare(write)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing is pending."""
        with suppress(sqlite3.Error):
            self._database.close()

    def begin(self, measurement: Measurement) -> int:
        """Store a measurement, with the samples it has, and return the key to append to.

        Raises:
            UserError: If it cannot be written, or the store has one of its run, block and order.
        """
        key = self._insert(measurement)
        if key is None:
            raise UserError(
                f"{self.path}: has run {measurement.run[:8]}, block {measurement.block}, order "
                f"{measurement.order} already; draw a new run"
            )
        return key

    def append(self, key: int, sample: float) -> None:
        """Store the next sample of a measurement; it is on the disk when this returns.

        Raises:
            ValueError: If the sample is not positive and finite.
            UserError: If it cannot be written.
        """
        check_samples((sample,))
        with self._told():
            self._database.execute(
                "INSERT INTO sample SELECT ?, count(*), ? FROM sample WHERE measurement = ?",
                (key, sample, key),
            )

    def note(self, key: int, /, **facts: str | int | float) -> None:
        """Add facts to a measurement that are known only at its end, for example peak memory.

        Raises:
            UserError: If they cannot be written.
        """
        with self._told():
            self._database.execute(
                "UPDATE measurement SET facts = json_patch(facts, ?) WHERE id = ?",
                (json.dumps(facts), key),
            )

    def add(self, measurements: Iterable[Measurement]) -> int:
        """Store whole measurements, all or none, for example those of another machine.

        Returns:
            How many were new or had samples that the store lacked; what it has stays as it is.

        Raises:
            UserError: If they cannot be written.
        """
        with self._told(), transaction(self._database):
            return sum(self._insert(one) is not None or self._complete(one) for one in measurements)

    def measurements(self, run: str | None = None) -> list[Measurement]:
        """Return the measurements, of one run or all, in the order they were stored.

        Raises:
            UserError: If the store is damaged.
        """
        where, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        with self._told(), transaction(self._database, "BEGIN"):
            rows = self._database.execute(
                f"SELECT id, {_QUOTED} FROM measurement {where} ORDER BY id", values
            ).fetchall()
            samples: dict[int, list[float]] = {row[0]: [] for row in rows}
            found = self._database.execute(
                "SELECT measurement, value FROM sample JOIN measurement ON id = measurement "
                f"{where} ORDER BY measurement, round",
                values,
            )
            for key, value in found:
                samples[key].append(value)
        try:
            return [replace(_measurement(row[1:]), samples=tuple(samples[row[0]])) for row in rows]
        except ValueError as error:
            raise UserError(f"{self.path}: damaged ({error}); {_ASIDE}") from error

    def _insert(self, measurement: Measurement) -> int | None:
        """Store a measurement unless its run, block and order are known; return its key."""
        with self._told(), nested_transaction(self._database):
            cursor = self._database.execute(
                f"INSERT INTO measurement ({_QUOTED}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
                "ON CONFLICT DO NOTHING",
                _values(measurement),
            )
            if cursor.rowcount != 1 or cursor.lastrowid is None:
                return None
            key = cursor.lastrowid
            self._database.executemany(
                "INSERT INTO sample VALUES (?, ?, ?)",
                [(key, number, value) for number, value in enumerate(measurement.samples)],
            )
            return key

    def _complete(self, measurement: Measurement) -> bool:
        """Add the later samples of a known measurement, taken in while it ran; tell if any."""
        place = (measurement.run, measurement.block, measurement.order)
        key, count = self._database.execute(
            "SELECT id, (SELECT count(*) FROM sample WHERE measurement = id) FROM measurement "
            'WHERE run = ? AND block = ? AND "order" = ?',
            place,
        ).fetchone()
        later = list(enumerate(measurement.samples))[count:]
        self._database.executemany(
            "INSERT INTO sample VALUES (?, ?, ?)", [(key, number, value) for number, value in later]
        )
        if later:
            self.note(key, **measurement.facts)
        return bool(later)

    def _prepare(self, write: bool) -> None:
        """Check the schema and migrate an older one."""
        found = self._schema()
        if found == len(_STEPS):
            return
        if not write:
            raise UserError(
                f"{self.path}: schema {found} found, {len(_STEPS)} expected; write to it once with "
                "'reslite bench' to migrate it"
            )
        with transaction(self._database):
            # Another process may have migrated it meanwhile.
            for number in range(self._schema(), len(_STEPS)):
                for statement in filter(str.strip, _STEPS[number].split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {number + 1}")
            self._database.execute(f"PRAGMA application_id = {_APPLICATION}")

    def _schema(self) -> int:
        """Return the version of the schema.

        Raises:
            UserError: If the file is no store, or of a newer schema.
        """
        found = int(self._database.execute("PRAGMA user_version").fetchone()[0])
        owner = int(self._database.execute("PRAGMA application_id").fetchone()[0])
        tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != _APPLICATION and (owner or found or tables):
            raise UserError(
                f"{self.path}: is an SQLite file of another program; name another file with --store"
            )
        if found > len(_STEPS):
            raise UserError(
                f"{self.path}: schema {found} found, {len(_STEPS)} expected by this version of "
                "reslite; update reslite or name another file with --store"
            )
        return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of SQLite into messages for the person at the keyboard."""
        try:
            yield
        except sqlite3.OperationalError as error:
            reason = f"cannot be opened or written ({error}); {_ELSEWHERE}"
            if is_locked(error):
                reason = f"locked by another process for more than {self._patience:g} s; end it, "
                reason += "then try again"
            raise UserError(f"{self.path}: {reason}") from error
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path}: no store of results ({error}); {_ASIDE}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{self.path}: cannot be opened ({reason}); {_ELSEWHERE}") from error


_ASIDE = "move it aside, or name another file with --store"
_ELSEWHERE = "name another file with --store"


def runs_of(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Return measurements by run, the run that began last at the end."""
    runs: dict[str, list[Measurement]] = {}
    for one in measurements:
        runs.setdefault(one.run, []).append(one)
    return dict(sorted(runs.items(), key=lambda item: min(one.when for one in item[1])))


def read_measurements(path: Path) -> list[Measurement]:
    """Read measurements that ``reslite bench export --json`` wrote, or those of another store.

    Raises:
        UserError: If the file cannot be read or holds something else.
    """
    try:
        with path.open("rb") as stream:
            is_store = stream.read(16) == b"SQLite format 3\0"
        if is_store:
            with Store(path, write=False) as store:
                return store.measurements()
        return measurements_from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); 'reslite bench export --json' "
            "writes such a file"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: no measurements ({error}); 'reslite bench export --json' writes them"
        ) from error


def measurements_to_json(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return measurements as JSON for other machines."""
    return {"schema": len(_STEPS), "measurements": [to_json(one) for one in measurements]}


def measurements_from_json(content: object) -> list[Measurement]:
    """Read what ``measurements_to_json`` returns, with every value checked.

    Raises:
        runtime.records.RecordError: If it holds something else; names the place.
    """
    if not isinstance(content, dict) or not isinstance(content.get("measurements"), list):
        raise RecordError("an object with a list 'measurements' expected")
    if content.get("schema") != len(_STEPS):
        found = content.get("schema")
        raise RecordError(f"schema {found!r} found, {len(_STEPS)} expected by this reslite")
    read = []
    for number, one in enumerate(content["measurements"]):
        try:
            read.append(from_json(Measurement, one))
        except RecordError as error:
            raise RecordError(f"measurements[{number}]: {error}") from error
    return read


def _values(measurement: Measurement) -> list[str | int | float | None]:
    content = to_json(measurement)
    content["height"], content["width"] = measurement.size
    for name in ("versions", "facts"):
        content[name] = json.dumps(content[name], ensure_ascii=False)
    return [content[name] for name in _COLUMNS]


def _measurement(row: Sequence[Any]) -> Measurement:
    """Return the measurement of a row, without its samples.

    Raises:
        ValueError: If a value does not fit.
    """
    content = dict(zip(_COLUMNS, row, strict=True))
    content["size"] = [content.pop("height"), content.pop("width")]
    for name in ("versions", "facts"):
        content[name] = json.loads(content[name])
    return from_json(Measurement, content)
