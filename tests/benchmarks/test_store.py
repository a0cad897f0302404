"""The store keeps every sample, whatever happens to its writers, and refuses what is no store."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import store as module
from benchmarks.measurement import Measurement
from benchmarks.store import (
    Store,
    default_store,
    measurements_from_json,
    measurements_to_json,
    read_measurements,
)
from runtime.errors import UserError
from runtime.records import RecordError, to_json

Make = Callable[..., Measurement]

NURSERY = """
import json, os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
from benchmarks.measurement import Measurement
from benchmarks.store import Store
from runtime.records import from_json

path, content = sys.argv[1:]
made, chance = from_json(Measurement, json.loads(content)), random.Random(0)
told = []
for block in range(50):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        store = Store(Path(path))
        key = store.begin(replace(made, block=block))
        os.write(writing, b".")
        for number in range(100_000):
            store.append(key, number + 1.0)
            os.write(writing, b".")
    os.close(writing)
    os.read(reading, 1)
    time.sleep(chance.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    count = 0
    while part := os.read(reading, 1 << 16):
        count += len(part)
    os.close(reading)
    told.append(count)
print(json.dumps(told))
"""

WRITER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from benchmarks.measurement import Measurement
from benchmarks.store import Store
from runtime.records import from_json

path, content, count = sys.argv[1:]
with Store(Path(path)) as store:
    key = store.begin(from_json(Measurement, json.loads(content)))
    print("begun", flush=True)
    for number in range(int(count)):
        store.append(key, number + 1.0)
        print(number + 1, flush=True)
"""


def _writer(path: Path, made: Measurement, count: int) -> subprocess.Popen[str]:
    content = json.dumps(measurements_to_json([made])["measurements"][0])
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), content, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_what_is_stored_is_found_again(measurement: Make, tmp_path: Path) -> None:
    first = measurement(versions={"ai-edge-litert": "2.1"}, facts={"opening ms": 3.5})
    second = measurement(order=1, role="control")
    with Store(tmp_path / "new" / "results.sqlite") as store:
        one, two = store.begin(first), store.begin(second)
        for sample in (1.25, 2.5):
            store.append(one, sample)
            store.append(two, 2 * sample)
        store.note(one, **{"peak MB": 31})

    with Store(tmp_path / "new" / "results.sqlite", write=False) as store:
        found = store.measurements()

    assert [one.samples for one in found] == [(1.25, 2.5), (2.5, 5.0)]
    assert found[0].facts == {"opening ms": 3.5, "peak MB": 31}
    assert found[0].versions == first.versions
    assert found[1].role == "control"


def test_runs_are_told_apart(measurement: Make, tmp_path: Path) -> None:
    other = "f" * 32
    with Store(tmp_path / "s") as store:
        store.add([measurement(samples=(1.0,)), measurement(run=other, samples=(2.0,))])
        assert [one.samples for one in store.measurements(other)] == [(2.0,)]
        with pytest.raises(UserError, match="draw a new run"):
            store.begin(measurement())


def test_nonsense_is_not_stored(measurement: Make, tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        key = store.begin(measurement())
        with pytest.raises(ValueError, match="positive"):
            store.append(key, float("nan"))
        assert store.measurements()[0].samples == ()


@pytest.mark.skipif(sys.platform == "win32", reason="kills of POSIX")
def test_fifty_kills_lose_at_most_the_sample_being_taken(measurement: Make, tmp_path: Path) -> None:
    path, content = tmp_path / "s", json.dumps(to_json(measurement()))
    told = json.loads(
        subprocess.run(
            [sys.executable, "-c", NURSERY, str(path), content],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
    )

    with Store(path) as store:
        found = store.measurements()
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(found) == len(told) == 50
    assert sum(told) > 50
    for count, one in zip(told, found, strict=True):
        assert len(one.samples) in (count, count + 1)  # the last may have been stored but not told
        assert one.samples == tuple(float(k + 1) for k in range(len(one.samples)))


def test_two_writers_of_one_new_store(measurement: Make, tmp_path: Path) -> None:
    processes = [_writer(tmp_path / "s", measurement(block=number), 40) for number in range(3)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0

    with Store(tmp_path / "s") as store:
        assert sorted(one.block for one in store.measurements()) == [0, 1, 2]
        assert all(len(one.samples) == 40 for one in store.measurements())


def test_measurements_travel(measurement: Make, tmp_path: Path) -> None:
    made = [measurement(order=k, samples=(1.0 + k,), facts={"é": "ü"}) for k in range(3)]
    text = json.dumps(measurements_to_json(made))
    (tmp_path / "phone.json").write_text(text, encoding="utf-8")

    with Store(tmp_path / "s") as store:
        assert store.add(read_measurements(tmp_path / "phone.json")) == 3
        assert store.add(read_measurements(tmp_path / "phone.json")) == 0
    assert read_measurements(tmp_path / "s") == made


def test_what_was_taken_in_while_it_ran_is_completed(measurement: Make, tmp_path: Path) -> None:
    whole = measurement(samples=(1.0, 2.0, 3.0), facts={"key": "k"})
    with Store(tmp_path / "s") as store:
        assert store.add([measurement(samples=(1.0,))]) == 1
        assert store.add([whole]) == 1
        assert store.add([whole, measurement(samples=(1.0,))]) == 0
        assert store.measurements() == [whole]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "a list 'measurements'"),
        ({"schema": 1}, "a list 'measurements'"),
        ({"schema": 99, "measurements": []}, "schema 99 found"),
        ({"schema": 1, "measurements": [{"run": 3}]}, r"measurements\[0\]"),
    ],
)
def test_other_json_is_refused(content: object, expected: str) -> None:
    with pytest.raises(RecordError, match=expected):
        measurements_from_json(content)


def test_import_of_what_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: no measurements"):
        read_measurements(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"b\.json: cannot be read"):
        read_measurements(tmp_path / "b.json")


def test_all_or_none_is_imported(
    measurement: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "s") as store:

        def failing() -> Iterator[Measurement]:
            yield measurement()
            raise RuntimeError

        with pytest.raises(RuntimeError):
            store.add(failing())
        assert store.measurements() == []


# Files that cannot be used


def test_a_damaged_file_is_refused_and_left_alone(measurement: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Store(path) as store:
        store.add([measurement(order=k, samples=(1.0,) * 200) for k in range(40)])
    content = bytearray(path.read_bytes())
    for start in range(4096 + 100, len(content), 4096):
        content[start : start + 2000] = b"\xff" * len(content[start : start + 2000])
    path.write_bytes(content)

    with pytest.raises(UserError, match=r"no store of results .*move it aside"):
        read_measurements(path)
    assert path.read_bytes() == bytes(content)


@pytest.mark.parametrize("content", [b"nonsense" * 600, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(UserError, match="no store of results"):
        Store(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == content


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as database:
        database.execute("CREATE TABLE music (title TEXT)")
    database.close()
    before = (tmp_path / "s").read_bytes()

    with pytest.raises(UserError, match="of another program"):
        Store(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == before


def test_a_newer_schema_is_refused(measurement: Make, tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.add([measurement()])
        store._database.execute("PRAGMA user_version = 99")
    for write in (True, False):
        with pytest.raises(UserError, match=r"schema 99 found, .* update reslite"):
            Store(tmp_path / "s", write=write)


def test_an_older_schema_is_migrated(
    measurement: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = measurement(samples=(1.0, 2.0))
    with Store(tmp_path / "s") as store:
        store.add([made])
    step = "ALTER TABLE measurement ADD COLUMN weather TEXT; CREATE TABLE place (name TEXT);"
    monkeypatch.setattr(module, "_STEPS", (*module._STEPS, step))

    with pytest.raises(UserError, match="to migrate it"):
        Store(tmp_path / "s", write=False)
    with Store(tmp_path / "s") as store:
        assert store.measurements() == [made]
        assert store._database.execute("SELECT weather FROM measurement").fetchall() == [(None,)]

    # A step that fails leaves the schema before it.
    monkeypatch.setattr(module, "_STEPS", (*module._STEPS, "CREATE TABLE a (b); CREATE nonsense;"))
    with pytest.raises(UserError, match="syntax error"):
        Store(tmp_path / "s")
    monkeypatch.setattr(module, "_STEPS", module._STEPS[:-1])
    with Store(tmp_path / "s") as store:
        assert store.measurements() == [made]


def test_a_locked_store_is_waited_for_and_told(measurement: Make, tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store, Store(tmp_path / "s", patience=0.1) as late:
        key = late.begin(measurement())
        store._database.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="locked by another process"):
            late.append(key, 1.0)
        store._database.execute("COMMIT")
        late.append(key, 2.0)
        assert store.measurements()[0].samples == (2.0,)


@contextmanager
def _as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_read_only_folder_is_told_and_its_store_can_be_read(measurement: Make) -> None:
    import shutil
    import tempfile

    # Not tmp_path, whose parents only its owner may enter.
    folder = Path(tempfile.mkdtemp())
    try:
        with Store(folder / "s") as store:
            store.add([measurement(samples=(1.0,))])
        folder.chmod(0o555)
        (folder / "s").chmod(0o444)
        with _as_nobody():
            assert read_measurements(folder / "s")[0].samples == (1.0,)
            with pytest.raises(UserError, match=r"/s: cannot be opened or written .*--store"):
                Store(folder / "s")
            with pytest.raises(UserError, match=r"/t: cannot be opened or written .*--store"):
                Store(folder / "t")
            with pytest.raises(UserError, match=r"/u: cannot be opened .*--store"):
                Store(folder / "new" / "u")
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such store"):
        Store(tmp_path / "s", write=False)
    assert not list(tmp_path.iterdir())


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RESLITE_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store() == tmp_path / "reslite" / "results.sqlite"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_store() == Path.home() / ".local" / "share" / "reslite" / "results.sqlite"
    monkeypatch.setenv("RESLITE_STORE", "here.sqlite")
    assert default_store() == Path("here.sqlite")
