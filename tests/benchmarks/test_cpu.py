"""Interleaving, ratios and rates with workers whose times are known, then real processes."""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks.devices import cpu as latency
from benchmarks.devices.cpu import (
    Contender,
    Spread,
    contenders_of,
    latency_table,
    measure_latency,
)
from benchmarks.devices.worker import Settings
from benchmarks.environment import read_environment
from runtime.errors import UserError
from runtime.manifest import Artifact, Manifest, PoolingTensors

TIMES = {"a": [10.0, 20.0, 40.0], "b": [5.0, 10.0, 10.0]}


@dataclasses.dataclass
class _Scripted:
    """A worker whose times are given; it writes down who was asked when."""

    name: str
    settings: Settings
    asked: list[str]
    runtime: str = "Scripted 1.0"
    size: tuple[int, int] = (180, 320)
    scale: int = 4
    opening_ms: float = 12.0

    def time_one(self) -> float:
        self.asked.append(self.name)
        return TIMES[self.name][self.asked.count(self.name) - 1]

    def finish(self) -> int:
        return 100_000_000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    @contextmanager
    def started(name: str, settings: Settings) -> Iterator[_Scripted]:
        yield _Scripted(name, settings, names)

    calm = dataclasses.replace(read_environment(0.01), other_load=0.0)
    monkeypatch.setattr(latency, "_started", started)
    monkeypatch.setattr(latency, "read_environment", lambda: calm)
    return names


def _contenders(names: Sequence[str] = "ab") -> list[Contender]:
    return [Contender(name, Path(f"{name}.onnx"), multadds=1_000_000_000) for name in names]


def test_artifacts_are_timed_in_turn(asked: list[str]) -> None:
    measure_latency(_contenders(), rounds=3)

    assert "".join(asked) == "ababab"


def test_speedup_is_the_median_of_the_ratios_within_rounds(asked: list[str]) -> None:
    report = measure_latency(_contenders(), rounds=3, reference="a", threads=1)

    row = report.row("b")
    assert row is not None
    # Ratios 2, 2, 4; the ratio of the medians would be 2 as well, that of the means 2.8.
    assert row.speedup == Spread(median=2.0, lower=2.0, upper=3.0)
    assert row.milliseconds == Spread(median=10.0, lower=7.5, upper=10.0)
    assert row.milliseconds.iqr == 2.5
    assert row.samples_ms == (5.0, 10.0, 10.0)
    # 180 × 320 × 4² is the 1280 × 720 that the MultAdds refer to.
    assert row.multadds_per_second == pytest.approx(1e9 / 0.010)
    assert row.peak_memory_bytes == 100_000_000


def test_rate_needs_multadds_and_ratio_a_reference(asked: list[str]) -> None:
    (row,) = measure_latency([Contender("a", Path("a.onnx"))], rounds=3).rows

    assert row.multadds_per_second is None
    assert row.speedup is None


@pytest.mark.skipif(platform.system() == "Darwin", reason="there it is run")
def test_core_ml_gets_a_reason_and_never_a_number(asked: list[str]) -> None:
    package = Contender("c", Path("c.mlpackage"), multadds=1)

    report = measure_latency([*_contenders(), package], rounds=1, reference="a")

    row = report.row("c")
    assert row == latency.Latency("c", "c", not_run="not run (needs macOS)")
    assert asked == ["a", "b"]
    assert "not run (needs macOS)" in latency_table(report)


@pytest.mark.parametrize(
    ("names", "reference", "rounds", "message"),
    [
        ("aa", None, 1, "a: given twice"),
        ("ab", "z", 1, "z: cannot run here; choose one of a, b"),
        ("ab", None, 0, "0 rounds requested"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    names: str, reference: str | None, rounds: int, message: str, asked: list[str]
) -> None:
    with pytest.raises(UserError, match=message):
        measure_latency(_contenders(names), reference=reference, rounds=rounds)
    assert not asked


def test_table_says_what_was_measured_and_on_what(asked: list[str]) -> None:
    report = measure_latency(_contenders(), rounds=3, reference="a", threads=2)

    lines = latency_table(report).splitlines()

    assert report.environment.cpu in lines[0]
    assert "threads: 2 of" in lines[0]
    assert lines[-2].split() == [
        *("b", "180×320", "10.00", "2.50", "100.0", "100", "12", "2.00×", "(2.00–3.00)"),
    ]
    assert "against a" in lines[-1]
    assert "Warning" not in latency_table(report)


def test_table_warns_of_other_load(asked: list[str]) -> None:
    report = measure_latency(_contenders(), rounds=1)
    busy = dataclasses.replace(report.environment, other_load=0.5)

    table = latency_table(dataclasses.replace(report, environment=busy))

    assert "Warning: 50% of the processor was busy" in table


def test_bundle_becomes_contenders(
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    tmp_path: Path,
) -> None:
    files = [write_artifact(tmp_path, kind, "float32") for kind in ("onnx", "tflite")]
    # A companion, which restores tiles in two passes, has no latency to compare.
    pooling = PoolingTensors(files[0].output, files[0].input)
    tiled = dataclasses.replace(files[0], file="tiny_x2_float32_tiled.onnx", pooling=pooling)

    found = contenders_of(tmp_path, manifest_of(*files, tiled), openvino=True)

    assert [(one.name, one.runtime) for one in found] == [
        ("tiny_x2_float32.onnx", None),
        ("tiny_x2_float32.onnx (openvino)", "openvino"),
        ("tiny_x2_float32.tflite", None),
    ]
    assert {one.multadds for one in found} == {files[0].multadds}


@pytest.mark.slow
def test_real_processes(write_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    files = [
        write_artifact(tmp_path, "onnx", "float32"),
        write_artifact(tmp_path, "tflite", "float32", size=(16, 16)),
    ]
    contenders = [Contender(one.file, tmp_path / one.file, None, one.multadds) for one in files]

    report = measure_latency(
        contenders, rounds=3, warmup=1, threads=1, size=(24, 32), reference=files[0].file
    )

    onnx, tflite = report.rows
    assert onnx.size == (24, 32)
    assert tflite.size == (16, 16)  # Its own: it takes no other.
    assert onnx.speedup == Spread(1.0, 1.0, 1.0)
    assert tflite.speedup is None  # Another input is other work.
    cells = latency_table(report).splitlines()[-2].split()
    assert cells[:2] == ["tiny_x2_float32.tflite", "16×16"]
    assert not cells[-1].endswith(")"), "no ratio against other work"
    for row in report.rows:
        assert len(row.samples_ms) == 3
        assert row.milliseconds is not None
        assert row.milliseconds.median == pytest.approx(np.median(row.samples_ms))
        assert row.peak_memory_bytes is not None
        # A Python process with a runtime, without torch: this one is larger.
        assert 10e6 < row.peak_memory_bytes < 250e6


def test_real_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nonsense")

    with pytest.raises(UserError, match=r"x\.onnx"):
        measure_latency([Contender("x", tmp_path / "x.onnx")], rounds=1)


def test_process_that_dies_is_told(
    write_artifact: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_artifact(tmp_path, "onnx", "float32").file
    settings = Settings(str(tmp_path / file), None, 1, (8, 8), 0)

    with (
        pytest.raises(UserError, match="x: its process ended with code -9"),
        latency._started("x", settings) as worker,
    ):
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        worker.time_one()


def test_folder_named_benchmarks_does_not_get_in_the_way(
    write_artifact: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_artifact(tmp_path, "onnx", "float32").file
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "worker.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)

    settings = Settings(file, None, 1, (8, 8), 0)
    with latency._started("x", settings) as worker:
        assert worker.time_one() > 0
