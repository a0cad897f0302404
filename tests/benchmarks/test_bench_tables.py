"""The tables of runs: ratios first, evidence named, doubts told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.latency import Latency
from benchmarks.measurement import Measurement
from benchmarks.report.bench_tables import run_json, run_text
from benchmarks.report.store_tables import comparison_text, runs_text, samples_csv
from runtime.errors import UserError

Make = Callable[..., Measurement]


def _run(make: Make, starts: int, file: float = 5.0, control: float = 10.0) -> list[Measurement]:
    """A reference of 10 ms, a file and a control, whose starts differ by up to 2 %."""
    found = []
    for start in range(starts):
        shared = {"start": start, "load": 0.02, "threads": 2}
        wobble = 1 + 0.01 * (start % 3 - 1)
        found += [
            make(block=2 * start, samples=(10.0, 20.0), **shared),
            make(
                block=2 * start,
                order=1,
                role="file",
                file="b",
                samples=(file * wobble, 2 * file * wobble),
                **shared,
            ),
            make(block=2 * start + 1, samples=(10.0, 20.0), **shared),
            make(
                block=2 * start + 1,
                order=1,
                role="control",
                samples=(control * wobble, 2 * control * wobble),
                **shared,
            ),
        ]
    return found


def test_ratios_lead_with_their_intervals(measurement: Make) -> None:
    lines = run_text(_run(measurement, 7)).splitlines()

    assert lines[0] == "measured on A processor, threads: 2"
    assert "2% of the processor" in lines[1]
    assert lines[2].split()[:2] == ["file", "speed"]
    assert lines[4].split()[:3] == ["b", "2.00×", "(1.98–2.02)"]
    assert lines[5].split()[:3] == ["tiny_x2_int8.tflite", "1.00×", "15.00"]
    assert "median ratio of 7 process starts; in brackets its 95 % interval" in lines[6]
    assert lines[7].endswith("against itself 1.00× (0.99–1.01) ~")
    assert "Warning" not in "".join(lines)


def test_no_difference_is_marked(measurement: Make) -> None:
    text = run_text(_run(measurement, 7, file=10.0))
    assert "b                    1.00× (0.99–1.01) ~" in text


def test_a_control_that_fails_is_a_warning(measurement: Make) -> None:
    text = run_text(_run(measurement, 7, control=11.0))
    assert "Warning: two processes of the same file were told apart" in text
    assert "Warning" not in run_text(_run(measurement, 3, control=11.0))  # too few to tell


def test_files_of_different_sizes_have_no_ratio(measurement: Make) -> None:
    run = _run(measurement, 7)
    assert "another size" not in run_text(run)
    run = [replace(one, size=(24, 24)) if one.file == "b" else one for one in run]
    lines = run_text(run).splitlines()
    assert "×" not in lines[4].replace("24×24", "")
    assert "no speed is told where the input has another size than the reference's" in lines
    assert lines[-1].endswith("against itself 1.00× (0.99–1.01) ~")


def test_few_starts_tell_a_range(measurement: Make) -> None:
    assert "the range (fewer than 6 starts" in run_text(_run(measurement, 3))
    one = run_text(_run(measurement, 1))
    assert "one start tells no interval" in one
    assert "~" not in one
    assert "b                    2.02×  " in one


def test_load_is_told(measurement: Make) -> None:
    made = [measurement(samples=(1.0,), load=0.6)]
    assert "60% of the processor was busy" in run_text(made)
    assert "Warning: that much load" in run_text(made)


def test_kinds_of_evidence_never_share_a_table(measurement: Make) -> None:
    estimated = measurement(
        block=9,
        role="file",
        device="ethos-u65-256",
        evidence="estimated",
        samples=(0.125,),
        facts={"cycles": 12500},
    )
    counted = measurement(
        block=10,
        role="file",
        device="arm64-instructions",
        evidence="counted",
        unit="instructions",
        samples=(1234567.0,),
    )
    measured, first, second = run_text([estimated, *_run(measurement, 2), counted]).split("\n\n")

    assert measured.startswith("measured on")
    assert first.startswith("estimated, not timed")
    assert "12,500 cycles" in first
    assert second.startswith("counted, not timed")
    assert "1,234,567" in second
    assert "fewer" in second
    assert "speed" not in second
    rows = run_json([estimated, *_run(measurement, 2), counted])["rows"]
    assert [row["evidence"] for row in rows] == ["measured", "measured", "estimated", "counted"]
    assert rows[3]["instructions"] == 1234567


def test_a_browser_has_several_runtimes_and_results_without_time(measurement: Make) -> None:
    shared = {"role": "file", "device": "browser", "machine": "Chromium on a phone"}
    made = [
        measurement(order=0, runtime="LiteRT.js WASM", samples=(20.0, 22.0), **shared),
        measurement(order=1, runtime="LiteRT.js WebGPU", samples=(5.0,), **shared),
        measurement(
            order=2,
            runtime="LiteRT.js WebGPU",
            evidence="executed",
            facts={"adapter": "SwiftShader", "levels": 1.5},
            **shared,
        ),
    ]

    measured, executed = run_text(made).split("\n\n")

    assert measured.startswith("measured on Chromium on a phone, browser")
    lines = measured.splitlines()
    assert lines[1].split()[:3] == ["file", "device", "runtime"]
    assert "LiteRT.js WASM" in lines[3]
    assert " 21.00 " in lines[3]
    assert " 5.00 " in lines[4]
    assert executed.startswith("executed, not timed: LiteRT.js WebGPU")
    assert "adapter SwiftShader, 1.5 levels" in executed
    assert run_json(made)["rows"][2]["ms"] is None


def test_what_was_not_run_has_its_reason(measurement: Make) -> None:
    reason = [Latency("c.mlpackage", not_run="not run (needs macOS)")]
    assert run_text(_run(measurement, 1), reason).endswith("c.mlpackage: not run (needs macOS)")


def test_a_run_that_broke_off_at_once(measurement: Make) -> None:
    assert "broke off before its first sample" in run_text([measurement()])


def test_runs_are_listed(measurement: Make) -> None:
    late = measurement(run="f" * 32, when="2026-12-02T00:00:00+00:00", samples=(1.0,), file="/x/y")
    lines = runs_text([late, *_run(measurement, 2)]).splitlines()
    assert lines[2].split()[:3] == ["01234567", "2026-12-01", "14:05:09"]
    assert lines[2].split()[3:7] == ["cpu", "measured", "2", "16"]
    assert lines[3].split()[-1] == "y"


def test_two_runs_are_compared(measurement: Make) -> None:
    before = _run(measurement, 7)
    after = [
        measurement(start=k, block=k, role="file", file="b", sha256="1" * 64, samples=(2.5,))
        for k in range(7)
    ]
    line = comparison_text(before, after).splitlines()[2]
    # Medians of the starts: 7.5 ms, by up to 1 %, before, and 2.5 ms after.
    assert line.split()[:5] == ["b", "cpu", "measured", "3.00×", "(2.97–3.03)"]
    assert line.endswith("another file of this name")

    elsewhere = [measurement(machine="Another", samples=(5.0,))]
    assert "different machines: A processor and Another" in comparison_text(before, elsewhere)
    with pytest.raises(UserError, match="share no file"):
        comparison_text(before, [measurement(file="z", samples=(1.0,))])


def test_every_sample_has_a_line(measurement: Make) -> None:
    text = samples_csv([measurement(samples=(1.5, 2.25), facts={"a": 1})])
    header, first, second = text.splitlines()
    assert header.endswith("height,width,versions,facts,round,sample")
    assert first.endswith('48,64,{},"{""a"": 1}",0,1.5')
    assert second.endswith(",1,2.25")
