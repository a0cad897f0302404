"""``reslite bench`` from the measurement to the store and back."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.blocks import Recorder
from benchmarks.measurement import Measurement
from benchmarks.store import Store

Cli = Callable[..., Any]

SHORT = ["--size", "16x16", "--starts", 2, "--rounds", 2, "--threads", 1]


@pytest.fixture
def files(bundle: Path) -> list[Path]:
    return [bundle / "carn_m_x4_int8.tflite", bundle / "carn_m_x4_float32.tflite"]


@pytest.mark.slow
def test_a_run_is_printed_kept_and_travels(cli: Cli, files: list[Path], tmp_path: Path) -> None:
    store = ["--store", tmp_path / "here.sqlite"]
    outcome = cli("bench", *files, *SHORT, "--reference", files[1], *store)
    assert outcome.code == 0, outcome.err
    assert "measured on" in outcome.out
    assert f"speed: against {files[1]}" in outcome.out
    assert f"control: {files[1]} against itself" in outcome.out
    assert f"kept in {tmp_path / 'here.sqlite'}" in outcome.out

    found = json.loads(cli("bench", *files, *SHORT, "--reference", files[1], *store, "--json").out)
    assert [row["name"] for row in found["rows"]] == [str(file) for file in files]
    assert all(row["evidence"] == "measured" for row in found["rows"])
    assert all(row["milliseconds"]["median"] > 0 for row in found["rows"])
    assert [row["speedup"]["starts"] for row in found["rows"]] == [2, 2]
    assert (found["starts"], found["rounds"], found["threads"]) == (2, 2, 1)
    assert found["control"]["starts"] == 2

    first, second = (line.split()[0] for line in cli("bench", "list", *store).out.splitlines()[2:])
    assert second == found["run"][:8]
    shown = json.loads(cli("bench", "show", "--json", *store).out)
    assert {row["name"]: row["samples_ms"] for row in shown["rows"]} == {
        row["name"]: row["samples_ms"] for row in found["rows"]
    }
    assert "control" in cli("bench", "show", first, *store).out
    compared = cli("bench", "compare", first, "latest", *store).out
    assert compared.count("16×16") == 2
    assert "did not take turns" in compared

    exported = cli("bench", "export", "--json", *store).out
    (tmp_path / "phone.json").write_text(exported, encoding="utf-8")
    other = ["--store", tmp_path / "there.sqlite"]
    assert "16 measurements" in cli("bench", "import", tmp_path / "phone.json", *other).out
    again = cli("bench", "import", tmp_path / "here.sqlite", *other).out
    assert "0 measurements, 16 known before" in again
    assert cli("bench", "export", "--json", *other).out == exported
    rows = list(csv.DictReader(io.StringIO(cli("bench", "export", second, "--csv", *other).out)))
    assert len(rows) == 8 * 2
    assert {row["file"] for row in rows} == {str(file) for file in files}
    assert all(float(row["sample"]) > 0 for row in rows)


@pytest.mark.slow
def test_devices_keep_to_their_tables(cli: Cli, bundle: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    model = bundle / "carn_m_x4_float32.onnx"

    outcome = cli("bench", model, *SHORT, "--device", "cpu,openvino", "--json")

    found = json.loads(outcome.out)
    assert [row["device"] for row in found["rows"]] == ["cpu", "openvino"]
    assert "OpenVINO" in found["rows"][1]["runtime"]
    assert found["rows"][1]["speedup"]["starts"] == 2


def test_an_estimate_is_called_so(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("ethosu", reason="needs the extra npu")
    arguments = ["--precision", "int8", "--size", "16x16", "--profile", "ethos-u"]
    assert cli("export", "carn-m", "--scale", 2, *arguments, "--out", tmp_path).code == 0
    (file,) = tmp_path.glob("*.tflite")

    devices = ["--device", "ethos-u65-256", "--device", "ethos-u55-256"]
    outcome = cli("bench", file, *devices)

    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("estimated, not timed: Vela")
    assert "measured" not in outcome.out
    row, slower = json.loads(cli("bench", file, *devices, "--json").out)["rows"]
    assert row["evidence"] == "estimated"
    assert 0 < row["ms"] < slower["ms"]
    assert row["size"] == [16, 16]
    layers = cli("bench", file, "--device", "ethos-u65-256", "--layers").out
    assert "estimated by the vendor's compiler" in layers
    assert "Conv2D" in layers
    outcome = cli("bench", file, "--device", "ethos-u65-256,cpu", "--starts", 1, "--rounds", 1)
    first, second = outcome.out.split("\n\n")
    assert first.startswith("measured on")
    assert second.startswith("estimated, not timed")


def test_layers_of_the_cpu(cli: Cli, files: list[Path]) -> None:
    outcome = cli("bench", files[0], "--layers", "--size", "16x16")
    assert outcome.code == 0, outcome.err
    assert "measured by the profiler of LiteRT" in outcome.out
    assert "upsampler.0" in outcome.out
    (found,) = json.loads(cli("bench", files[0], "--layers", "--size", "16x16", "--json").out)
    assert found["joined"]
    assert "tells no layers" in cli("bench", files[0], "--layers", "--device", "openvino").err


def test_what_a_device_does_not_take_is_told(cli: Cli, files: list[Path]) -> None:
    pytest.importorskip("ethosu", reason="needs the extra npu")
    outcome = cli("bench", files[0], "--device", "ethos-u65-256")
    assert outcome.code == 2
    assert "not run (needs a file of fixed size" in outcome.err


def test_a_run_without_a_store_prints_all_the_same(
    cli: Cli, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    short = ["--size", "16x16", "--starts", 1, "--rounds", 1, "--threads", 1]
    outcome = cli("bench", files[0], *short, "--store", tmp_path / "file" / "s")
    assert outcome.code == 0
    assert "results are not stored" in outcome.err
    assert "1.00×" in outcome.out
    assert "kept in" not in outcome.out

    outcome = cli("bench", files[0], *short, "--no-store", "--store", tmp_path / "none")
    assert outcome.code == 0
    assert not (tmp_path / "none").exists()


def test_runs_are_named_by_their_beginning(cli: Cli, files: list[Path], tmp_path: Path) -> None:
    with Store(tmp_path / "s"):
        pass
    assert "is empty" in cli("bench", "show", "--store", tmp_path / "s").err
    cli("bench", files[0], *SHORT[:2], "--starts", 1, "--rounds", 1, "--store", tmp_path / "s")
    assert cli("bench", "show", "zz", "--store", tmp_path / "s").err.startswith(
        "reslite: zz: no such run"
    )


@pytest.mark.slow
def test_a_killed_run_keeps_its_samples(cli: Cli, files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "s"
    command = [sys.executable, "-m", "reslite", "bench", *map(str, files), "--size", "16x16"]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [*command, "--threads", "1", "--store", str(store), "--starts", "50"],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _samples(store):
        time.sleep(0.1)
    process.kill()
    process.wait()
    kept = _samples(store)
    assert kept > 0
    assert cli("bench", "show", "--store", store).out.startswith("measured on")


def _samples(path: Path) -> int:
    if not path.exists():
        return 0
    with Store(path) as store:
        return sum(len(one.samples) for one in store.measurements())


def test_an_interrupted_run_prints_what_it_has(
    cli: Cli,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measurement: Callable[..., Measurement],
) -> None:
    def interrupted(files: object, devices: object, recorder: Recorder, **_: object) -> None:
        number = recorder.begin(measurement(run=recorder.run, file="a"))
        recorder.append(number, 12.5)
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.bench.measure_times", interrupted)
    outcome = cli("bench", files[0], "--store", tmp_path / "s")
    assert outcome.code == 2
    assert "12.50" in outcome.out
    run = outcome.out.partition("bench show ")[2][:8]
    assert len(run) == 8
    assert "12.50" in cli("bench", "show", run, "--store", tmp_path / "s").out


def test_the_verbs_are_in_the_help(cli: Cli) -> None:
    text = cli("bench", "--help").out
    assert text.startswith("Usage: reslite bench [OPTIONS] [FILES]...")
    for verb in ("devices", "list", "show", "compare", "export", "import"):
        assert f"bench {verb}" in text
        assert "Example: reslite bench" in cli("bench", verb, "--help").out


def test_devices_are_listed_with_their_evidence(cli: Cli) -> None:
    rows = {line.split()[0]: line.split()[1:3] for line in cli("bench", "devices").out.splitlines()}
    assert rows["cpu"] == ["measured", "ms"]
    assert rows["arm64-instructions"] == ["counted", "instructions"]
    assert rows["ethos-u65-256"] == ["estimated", "ms"]
    assert "litert-gpu" not in rows
