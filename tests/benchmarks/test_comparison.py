"""Pairs, starts and ratios with a device whose times are known."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import blocks, comparison
from benchmarks.bench import measure_times
from benchmarks.blocks import Contender, Recorder, contenders_of
from benchmarks.comparison import Plan, measure_latency, planned
from benchmarks.devices.cpu import CPU
from benchmarks.devices.device import Execution, Subject, Takes, Timed, TimedDevice, Timing
from benchmarks.environment import read_environment
from benchmarks.latency import Latency, Spread, control_of, latencies_of
from benchmarks.store import Store
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX
from runtime.manifest import Artifact, Manifest, PoolingTensors
from runtime.session import FloatPicture


class _Opened(Timed):
    """A start whose times follow from the file, the start and the round."""

    def __init__(self, device: Scripted, path: Path, timing: Timing) -> None:
        self.runtime, self.scale = "Scripted 1.0", 4
        self.size = (16, 16) if path.stem == "small" else timing.size or (180, 320)
        self.facts = {"opening_ms": 12.0}
        self._device, self._name, self._round = device, path.stem, 0
        self._start = sum(name == path.stem for name in device.opened_files)
        device.opened_files.append(path.stem)

    def time_one(self) -> float:
        if self._device.dies_after is not None and len(self._device.asked) >= (
            self._device.dies_after
        ):
            raise UserError(f"{self._name}: its process ended with code -9")
        self._device.asked.append(self._name)
        self._round += 1
        return self._device.times[self._name] * (1 + self._round % 2)

    def finish(self) -> Mapping[str, str | int | float]:
        self._device.finished += 1
        return {"peak_memory_bytes": 100_000_000}


class Scripted(TimedDevice):
    name = "cpu"
    title = "Scripted"
    takes = Takes({"onnx": ("float32",)})

    def __init__(self, **times: float) -> None:
        self.times = times
        self.asked: list[str] = []
        self.opened_files: list[str] = []
        self.finished = 0
        self.dies_after: int | None = None

    def missing(self) -> str | None:
        return None

    def versions(self) -> Mapping[str, str]:
        return {}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        raise AssertionError

    def machine(self) -> str:
        return "A machine"

    def untimed(self, path: Path) -> str | None:
        kind = BY_SUFFIX[path.suffix]
        return None if kind.runs_here() else kind.not_run

    @contextmanager
    def opened(self, path: Path, timing: Timing) -> Iterator[Timed]:
        yield _Opened(self, path, timing)


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = dataclasses.replace(read_environment(0.01), other_load=0.0)
    monkeypatch.setattr(comparison, "read_environment", lambda: environment)
    monkeypatch.setattr(blocks, "read_load", lambda seconds: 0.05)


def _contenders(device: TimedDevice, names: str = "ab") -> list[Contender]:
    return [Contender(Path(f"{n}.onnx"), device, None, "", n, "0" * 64) for n in names]


def _measured(
    device: Scripted, files: Sequence[str], recorder: Recorder, **options: object
) -> None:
    paths = [Path(f"{name}.onnx") for name in files]
    options = {"plan": Plan(3, 2, 1), **options}
    measure_times(paths, [device], recorder, **options)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "small"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)


def test_each_start_measures_every_pair_and_the_control(files: None) -> None:
    device, recorder = Scripted(a=10, b=5, c=20), Recorder()

    _measured(device, "abc", recorder)

    found = recorder.measurements
    assert len(found) == 3 * 3 * 2
    assert device.finished == len(found)
    for start in range(3):
        pairs = [
            frozenset((one.role, one.file) for one in found if one.block == block)
            for block in sorted({one.block for one in found if one.start == start})
        ]
        base = ("reference", "a.onnx")
        assert sorted(pairs, key=sorted) == sorted(
            (
                frozenset({base, ("control", "a.onnx")}),
                frozenset({base, ("file", "b.onnx")}),
                frozenset({base, ("file", "c.onnx")}),
            ),
            key=sorted,
        )
    # Within a pair they take turns.
    assert all(device.asked[k : k + 2] == device.asked[k + 2 : k + 4] for k in range(0, 36, 4))


def test_the_order_is_drawn_anew(files: None) -> None:
    recorder = Recorder()
    _measured(Scripted(a=10, b=5, c=20), "abc", recorder, plan=Plan(12, 1, 0))

    found = recorder.measurements
    first = [one.role for one in found if one.order == 0]
    assert {"reference", "file", "control"} == set(first)
    orders = {
        tuple(dict.fromkeys(o.block % 3 for o in found if o.start == start and o.file == "b.onnx"))
        for start in range(12)
    }
    assert len(orders) > 1  # which pair comes first


def test_ratios_are_of_pairs_and_starts(files: None) -> None:
    recorder = Recorder()
    _measured(Scripted(a=10, b=5, small=1), ["a", "b", "small"], recorder)

    a, b, small = latencies_of(recorder.measurements, ["a.onnx", "b.onnx", "small.onnx"])
    assert b.speedup is not None
    assert (b.speedup.median, b.speedup.lower, b.speedup.upper, b.speedup.starts) == (2, 2, 2, 3)
    assert b.start_ratios == (2, 2, 2)
    assert b.milliseconds == Spread(7.5, 5, 10)
    assert (b.peak_memory_bytes, b.opening_ms) == (100_000_000, 12.0)
    assert len(a.samples_ms) == 3 * 3 * 2  # in every pair, the control's not counted
    assert small.size == (16, 16)
    assert small.speedup is None  # another input is other work
    control = control_of(recorder.measurements)
    assert control is not None
    assert (control.median, control.starts) == (1, 3)


def test_rate_is_of_the_networks_multadds(files: None) -> None:
    (row,) = measure_latency(_contenders(Scripted(a=10), "a"), plan=Plan(1, 2, 0)).rows
    assert row.multadds_per_second is None
    assert row.speedup is None

    entry = Artifact(
        *("a.onnx", "onnx", "float32", "0" * 64, 1, None, None, "", ()),  # type: ignore[arg-type]
        multadds=1_000_000_000,
        operators={},
    )
    known = [dataclasses.replace(one, artifact=entry) for one in _contenders(Scripted(a=10), "a")]
    (row,) = measure_latency(known, plan=Plan(1, 2, 0)).rows
    # 180 × 320 × 4² is the 1280 × 720 that the MultAdds refer to; 15 ms is the median.
    assert row.multadds_per_second == pytest.approx(1e9 / 0.015)


def test_all_take_turns_for_the_report() -> None:
    device = Scripted(a=10, b=5, c=20)
    report = measure_latency(_contenders(device, "abc"), reference="b", plan=Plan(2, 2, 1))

    assert len(set(device.asked[:3])) == 3
    assert device.asked[:3] == device.asked[3:6]
    assert [one.file for one in report.rows] == ["a", "b", "c"]
    row = report.row("c")
    assert row is not None
    assert row.speedup is not None
    assert row.speedup.median == 0.25
    assert (report.starts, report.rounds, report.reference) == (2, 2, "b")


@pytest.mark.skipif(platform.system() == "Darwin", reason="there it is run")
def test_core_ml_gets_a_reason_and_never_a_number() -> None:
    device = Scripted(a=10)
    package = Contender(Path("c.mlpackage"), device, file="c")

    report = measure_latency([*_contenders(device, "a"), package], plan=Plan(1, 1, 0))

    assert report.row("c") == Latency("c", not_run="not run (needs macOS)")
    assert device.asked == ["a"]


def test_mistakes_are_told_before_anything_runs(files: None) -> None:
    device = Scripted(a=10)
    with pytest.raises(UserError, match="a: given twice"):
        measure_latency(_contenders(device, "aa"), plan=Plan())
    with pytest.raises(UserError, match=r"z: cannot run here; choose one of a, b"):
        measure_latency(_contenders(device, "ab"), reference="z", plan=Plan())
    assert not device.asked


def test_a_file_that_is_not_the_manifests_is_told_before_anything_runs(
    files: None,
    tmp_path: Path,
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
) -> None:
    device = Scripted(a=10, b=5)
    artifact = dataclasses.replace(write_artifact(tmp_path, "onnx", "float32"), file="b.onnx")
    manifest_of(artifact).write(tmp_path)
    with pytest.raises(UserError, match=r"b\.onnx: SHA-256 differs from .*; export it again$"):
        _measured(device, ["a", "b"], Recorder())
    assert not device.asked


def test_a_budget_that_is_too_small_says_what_would_do(files: None) -> None:
    device, recorder = Scripted(a=10, b=5), Recorder()
    with pytest.raises(UserError, match=r"--budget 1e-06s: 3 starts of 3 rounds, .* about 1 s"):
        _measured(device, ["a", "b"], recorder, budget=1e-6)
    assert not recorder.measurements


def test_what_was_measured_before_a_death_is_kept(files: None, tmp_path: Path) -> None:
    device = Scripted(a=10, b=5)
    device.dies_after = 5
    with Store(tmp_path / "s") as store:
        recorder = Recorder(store)
        with pytest.raises(UserError, match="ended with code -9"):
            _measured(device, "ab", recorder)
        kept = store.measurements(recorder.run)
    assert sum(len(one.samples) for one in kept) == 5
    assert kept == recorder.measurements
    assert latencies_of(kept)


def test_a_store_that_fails_does_not_end_the_run(files: None, tmp_path: Path) -> None:
    told: list[str] = []
    with Store(tmp_path / "s") as store:
        recorder = Recorder(store, told.append)
        store._database.execute("PRAGMA query_only = ON")
        _measured(Scripted(a=10, b=5), "ab", recorder)
    assert len(recorder.measurements) == 3 * 2 * 2
    assert recorder.stored is None
    (line,) = told
    assert line.startswith("results are no longer stored: ")
    assert "--store" in line


def test_what_is_stored_is_what_is_shown(files: None, tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        recorder = Recorder(store)
        _measured(Scripted(a=10, b=5), "ab", recorder)
        assert store.measurements() == recorder.measurements


def test_a_time_that_cannot_be_is_refused(files: None) -> None:
    with pytest.raises(UserError, match="not a time"):
        _measured(Scripted(a=10, b=-5), "ab", Recorder())


@pytest.mark.parametrize(
    ("budget", "opening", "rounds", "expected"),
    [
        (60, 4, 0.5, Plan(9, 5)),  # 6.5 s a start
        (60, 2, 1.5, Plan(7, 4)),  # 9.5 s with five rounds is too much, 8 s with four is not
        (5, 4, 0.5, Plan(3, 3)),  # never fewer
        (600, 4, 0.5, Plan(15, 20)),  # then more rounds, up to twenty
        (120, 4, 0.5, Plan(15, 8)),
    ],
)
def test_a_budget_buys_starts_then_rounds(
    budget: float, opening: float, rounds: float, expected: Plan
) -> None:
    assert planned(budget, opening, rounds) == expected


def test_bundle_becomes_contenders(
    write_artifact: Callable[..., Artifact], manifest_of: Callable[..., Manifest], tmp_path: Path
) -> None:
    artifact = write_artifact(tmp_path, "onnx", "float32")
    # A companion, which restores tiles in two passes, has no latency to compare.
    pooling = PoolingTensors(artifact.output, artifact.input)
    tiled = dataclasses.replace(artifact, file="tiny_x2_float32_tiled.onnx", pooling=pooling)

    (found,) = contenders_of(tmp_path, manifest_of(artifact, tiled), CPU())

    assert (found.file, found.network, found.format) == (artifact.file, "tiny", "onnx")
    assert found.path == tmp_path / artifact.file


def test_the_cpu_refuses_what_it_cannot_time(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"x\.onnx"):
        measure_times([tmp_path / "x.onnx"], [CPU()], Recorder(), plan=Plan(1, 1, 0))
    with pytest.raises(UserError, match="no such file"):
        measure_times([tmp_path / "y.onnx"], [CPU()], Recorder(), plan=Plan(1, 1, 0))
