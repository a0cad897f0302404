"""Every number of the made-up measurements differs, so that one in another's place shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy import Scores
from benchmarks.devices.ethos_u import NpuEstimate, Target
from benchmarks.environment import Environment
from benchmarks.latency import Latency, LatencyReport, Spread
from benchmarks.ratios import Interval
from benchmarks.report.report import RESTORES_TILES, NpuRow, Report, Row
from tools.refresh import PUBLISHED
from tools.result_tables import (
    artifacts_table,
    effort,
    multadds_finding,
    read_published,
    scores_table,
    shdd_table,
)
from training.tasks import SUPER_RESOLUTION

NOT_RUN = "not run (needs macOS)"
TEST_SETS = {"first": "First", "second": "Second"}


def _lines(table: str) -> list[list[str]]:
    """Return the cells of the lines of a Markdown table, without the line below its header."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:])]


def test_scores_stand_beside_the_published_ones_at_every_scale() -> None:
    known = {
        "psnr": {"first": {"2": 21.012, "4": 21.034}, "second": {"2": 22.056, "4": 22.078}},
        "steps": 1000,
        "hours": 1.0,
    }
    unknown = {"psnr": {"first": {"3": 23.1}, "second": {"3": 24.2}}, "steps": 2000, "hours": 3.0}
    published = {
        ("known", "first", 2): 31.5,
        ("known", "first", 4): 32.5,
        ("known", "second", 2): 33.5,
        ("known", "second", 4): 34.5,
    }
    bicubic = {2: {"first": 11.0, "second": 12.0}, 4: {"first": 13.0, "second": 14.0}}

    table = scores_table({"known": known, "unknown": unknown}, bicubic, TEST_SETS, published)

    assert _lines(table) == [
        ["", "scale", "First ours / paper", "Second ours / paper", "training"],
        ["bicubic", "×2", "11.00", "12.00", ""],
        ["bicubic", "×4", "13.00", "14.00", ""],
        ["known", "×2", "**21.01** / 31.50", "**22.06** / 33.50", "1,000 steps, 1.0 h"],
        ["known", "×4", "**21.03** / 32.50", "**22.08** / 34.50", "1,000 steps, 1.0 h"],
        ["unknown", "×3", "**23.10**", "**24.20**", "2,000 steps, 3.0 h"],
    ]


def test_scores_on_shdd_stand_in_the_row_of_their_level_and_kind() -> None:
    large = {
        "psnr": {"shdd-easy": {"1": 31.0}, "shdd-difficult": {"1": 32.0}},
        "distorted": {"shdd-easy": 21.0, "shdd-difficult": 22.0},
        "kinds": {"noise": [11.0, 12.0], "identity": [None, 13.0]},
        "steps": 1000,
        "hours": 1.0,
    }
    small = {
        **large,
        "psnr": {"shdd-easy": {"1": 33.0}, "shdd-difficult": {"1": 34.0}},
        "kinds": {"noise": [11.0, 14.0], "identity": [None, 15.0]},
        "steps": 2000,
    }
    levels = {"shdd-easy": "easy", "shdd-difficult": "difficult"}
    published = {("large", "shdd-easy", 1): 41.5, ("large", "shdd-difficult", 1): 42.5}

    table = shdd_table({"large": large, "small": small}, levels, published)

    assert _lines(table) == [
        ["", "distorted", "large", "small"],
        ["easy", "21.00", "**31.00** / 41.50", "**33.00**"],
        ["difficult", "22.00", "**32.00** / 42.50", "**34.00**"],
        ["noise regions", "11.00", "12.00", "14.00"],
        ["identity regions", "", "13.00", "15.00"],
        ["training", "", "1,000 steps, 1.0 h", "2,000 steps, 1.0 h"],
    ]


def test_clean_pictures_have_a_row_and_their_worst_another() -> None:
    old = {
        "psnr": {"shdd-easy": {"1": 31.0}},
        "distorted": {"shdd-easy": 21.0},
        "kinds": {"identity": [None, 41.0]},
        "steps": 1000,
        "hours": 1.0,
    }
    new = {
        **old,
        "psnr": {"shdd-easy": {"1": 32.0}, "clean": {"1": 47.25}},
        "worst": {"shdd-easy": {"1": 22.5}, "clean": {"1": 36.75}},
        "distorted": {"shdd-easy": 21.0, "clean": None},
    }
    perfect = {
        **new,
        "psnr": {"shdd-easy": {"1": 33.0}, "clean": {"1": None}},
        "worst": {"shdd-easy": {"1": 23.5}, "clean": {"1": None}},
    }
    levels = {"shdd-easy": "easy", "clean": "clean"}

    table = shdd_table({"old": old, "new": new, "perfect": perfect}, levels, {})

    assert _lines(table)[1:4] == [
        ["easy", "21.00", "**31.00**", "**32.00**", "**33.00**"],
        ["clean", "", "", "**47.25**", "**equal**"],
        ["clean, worst", "", "", "36.75", "equal"],
    ]
    assert [row[0] for row in _lines(shdd_table({"old": old}, levels, {}))] == [
        *("", "easy", "identity regions", "training")
    ]


def test_effort_counts_what_a_run_started_from_once() -> None:
    first = {"sha256": "1", "steps": 7_600, "hours": 0.69}
    assert effort({"steps": 7_600, "hours": 0.69}) == "7,600 steps, 0.7 h"
    second = {"sha256": "2", "steps": 2_250, "hours": 0.36, "start": first}
    assert effort({"steps": 100, "hours": 0.0, "start": [second]}) == "9,950 steps, 1.0 h"
    assert effort({"steps": 100, "hours": 0.0, "start": [first, second]}) == "9,950 steps, 1.0 h"
    run = {**second, "recipe": {"seed": 1}}
    published = {**run, "sha256": "3", "psnr": {"4": 31.8}, "worst": {"4": 29.1}}
    published["recipe"] = {"seed": 1, "new": 0}
    another = {**run, "sha256": "4", "recipe": {"seed": 2}}
    assert effort({"steps": 1, "hours": 0.0, "start": [run, published]}) == "9,851 steps, 1.0 h"
    assert effort({"steps": 1, "hours": 0.0, "start": [run, another]}) == "12,101 steps, 1.4 h"


def _latency(name: str, samples: tuple[float, ...], speedup: float) -> Latency:
    ratio = Interval(speedup, speedup - 0.1, speedup + 0.1, 3)
    middle = Spread(sorted(samples)[1], min(samples), max(samples))
    return Latency(name, size=(96, 160), milliseconds=middle, samples_ms=samples, speedup=ratio)


def _estimate(milliseconds: float) -> NpuEstimate:
    target = Target("npu-256", "System", "Memory")
    return NpuEstimate(
        "a.tflite", target, (48, 64), milliseconds, 1, 1.0, 1, 1, (), "Vela", "estimated"
    )


@pytest.fixture(scope="module")
def report() -> Report:
    """A report of ``heavy`` ×2, whose latency was measured in turn with that of ``light-er``."""
    rows = (
        Row("heavy_x2_float32.tflite", "tflite", "float32", 8000, 1, 1e-6, 31.25, 0.9, 0.001),
        Row("heavy_x2_int8.onnx", "onnx", "int8", 2000, 1, 2e-2, 31.5, 0.8, 0.012),
        Row("heavy_x2_int8.tflite", "tflite", "int8", 3000, 1, 3e-2, 31.75, 0.7, 0.023),
        Row("heavy_x2_int8.mlpackage", "coreml", "int8", 4000, 1, not_run=NOT_RUN),
        Row("heavy_x2_int8_tiled.onnx", "onnx", "int8", 5000, 1, 4e-2, not_run=RESTORES_TILES),
    )
    latencies = (
        _latency("heavy_x2_float32.tflite", (12.0, 24.0, 36.0), 1.0),
        _latency("heavy_x2_int8.onnx", (7.0, 8.0, 9.0), 2.75),
        _latency("heavy_x2_int8.tflite", (2.0, 9.0, 4.0), 4.25),
        Latency("heavy_x2_int8.mlpackage", not_run=NOT_RUN),
        _latency("light_er_x2_float32.tflite", (8.0, 12.0, 90.0), 5.5),  # ratios 1.5, 2, 0.4
        _latency("light_er_x2_int8.tflite", (1.0, 1.0, 1.0), 6.5),  # ratios 2, 9, 4
    )
    machine = Environment("Processor", ("one", "two"), 1, 1, 1, "", "", {}, None, 0.0)
    return Report(
        model="heavy",
        task=SUPER_RESOLUTION,
        scale=2,
        pictures="First",
        source=Scores(33.125, 0.95, ()),
        baseline=Scores(28.5, 0.85, ()),
        rows=rows,
        latency=LatencyReport(machine, 3, 2, 17, 5, "heavy_x2_float32.tflite", latencies),
        npu=(NpuRow("light-er", _estimate(2.5)), NpuRow("heavy", _estimate(8.0))),
    )


def test_every_file_has_its_own_size_difference_losses_and_speed(report: Report) -> None:
    lost = {
        "heavy_x2_float32.tflite": 0.101,
        "heavy_x2_int8.onnx": 0.202,
        "heavy_x2_int8.tflite": 0.303,
    }

    table = artifacts_table(report, ("First", "Second"), lost)

    columns = ["kB", "max. difference", "First dB", "lost on First", "lost on Second", "speed"]
    assert _lines(table) == [
        ["file", *columns],
        ["`heavy_x2_float32.tflite`", "8", "1.0e-06", "31.25", "0.001", "0.101", "1.00×"],
        ["`heavy_x2_int8.onnx`", "2", "2.0e-02", "31.50", "0.012", "0.202", "2.75×"],
        ["`heavy_x2_int8.tflite`", "3", "3.0e-02", "31.75", "0.023", "0.303", "4.25×"],
        ["`heavy_x2_int8.mlpackage`", "4", NOT_RUN, "", "", "", ""],
    ]
    assert table.splitlines()[0] == (
        "heavy ×2; PSNR-Y on First (33.12 dB in torch), speed against `heavy_x2_float32.tflite` at "
        "an input of 96×160 on Processor (one, two; 3 threads, median of 2 process starts of 17 "
        "interleaved rounds)."
    )


def test_fewer_multadds_are_set_against_what_they_buy(report: Report) -> None:
    assert multadds_finding(report, "light-er", {"heavy": 900, "light-er": 250}) == (
        "LIGHT-ER ×2 has 3.6× fewer MultAdds than HEAVY. With TFLite on this CPU that makes it "
        "1.50× as fast in float32 and 4.00× in int8; on an npu-256 NPU at 48×64 3.20× (estimated, "
        "System, Memory)."
    )


def test_published_scores_are_read_and_each_says_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text('model,test_set,scale,psnr,source\na,set5,2,31.5,"A, B"\nb,set14,1,29.25,C\n')
    assert read_published(path) == {("a", "set5", 2): 31.5, ("b", "set14", 1): 29.25}
    _, *rows = PUBLISHED.read_text(encoding="utf-8").splitlines()
    assert len(read_published(PUBLISHED)) == len(rows)  # no score twice
    assert all(row.split(",", 4)[4] for row in rows)
