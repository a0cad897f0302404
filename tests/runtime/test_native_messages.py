"""Native libraries write nothing to the terminal, and what they say on errors is not lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.engines import litert_engine
from runtime.errors import UserError
from runtime.native_messages import kept_messages, write_messages
from runtime.pictures.files import read_picture

ROOT = Path(__file__).parents[2]


def _write(text: str) -> None:
    os.write(2, text.encode())


def test_lines_are_kept_while_the_block_runs_only(capfd: pytest.CaptureFixture[str]) -> None:
    _write("before\n")
    with kept_messages() as said:
        _write("one\ntwo")
        assert said == []
    _write("after\n")

    assert said == ["one", "two"]
    assert capfd.readouterr().err == "before\nafter\n"
    write_messages([])
    write_messages(["a", "b"])
    assert capfd.readouterr().err == "a\nb\n"


def test_lines_are_kept_of_a_block_that_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), kept_messages() as said:
        _write("why\n")
        raise ValueError("no")
    _write("after\n")

    assert said == ["why"]
    assert capfd.readouterr().err == "after\n"


def test_threads_do_not_mix_their_lines(capfd: pytest.CaptureFixture[str]) -> None:
    found: dict[int, list[str]] = {}

    def keep(number: int) -> None:
        with kept_messages() as said:
            _write(f"{number} begins\n")
            time.sleep(0.005)
            _write(f"{number} ends\n")
        found[number] = said

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    _write("after\n")

    assert found == {number: [f"{number} begins", f"{number} ends"] for number in range(8)}
    assert capfd.readouterr().err == "after\n"


_RUN = """
import sys, numpy, runtime
with runtime.open(sys.argv[1]) as session:
    session.run(numpy.zeros((6, 7, 3), numpy.float32))
    print(*session.run(numpy.zeros((9, 8, 3), numpy.float32)).shape)
"""


def _process(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_tflite_file_runs_in_silence(write_tflite: Callable[..., Path], tmp_path: Path) -> None:
    done = _process(_RUN, write_tflite(tmp_path / "a.tflite"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "18 16 3\n", "")


def test_a_process_without_a_standard_error_is_no_obstacle(
    write_tflite: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_tflite(tmp_path / "a.tflite")
    for code in ("import os; os.close(2)", "import sys; sys.stderr = None"):
        done = _process(code + _RUN, path)
        assert (done.returncode, done.stdout) == (0, "18 16 3\n")


def test_what_litert_writes_beside_its_announcements_is_passed_on(
    write_tflite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    real, name = litert_engine._interpreter_class()

    class Talking(real):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            _write("INFO: here I am\nWARNING: an odd file\n")
            super().__init__(**options)

        def allocate_tensors(self) -> None:
            _write("INFO: a delegate\nERROR: no room\n")
            super().allocate_tensors()

    monkeypatch.setattr(litert_engine, "_interpreter_class", lambda: (Talking, name))
    path = write_tflite(tmp_path / "a.tflite")
    with runtime.open(path) as session:
        session.run(np.zeros((6, 7, 3), np.float32))
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == ["WARNING: an odd file", "ERROR: no room"]

    def fail(self: Any, **options: Any) -> None:
        _write("INFO: here I am\nERROR: op 7 is unknown\n")
        raise ValueError("cannot be made")

    monkeypatch.setattr(Talking, "__init__", fail)
    with pytest.raises(UserError, match=r"\(cannot be made; ERROR: op 7 is unknown\)"):
        runtime.open(path)
    assert capfd.readouterr().err == ""


def test_what_libtiff_says_of_a_damaged_file_is_in_the_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, compression="tiff_deflate")
    content = bytearray(path.read_bytes())
    assert read_picture(path).pixels.shape == (64, 64, 3)
    middle = len(content) // 2
    content[middle] ^= 255
    path.write_bytes(content)

    with pytest.raises(UserError, match=r"a\.tif: damaged or truncated \(.*ZIPDecode: Decoding"):
        read_picture(path)
    assert capfd.readouterr().err == ""
