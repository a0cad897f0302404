"""The tables of docs/results.md as Markdown, from measured figures and figures of the papers.

The functions measure nothing, so that tests can use made-up numbers. Training records are as
completed by ``tools.refresh.publish``: PSNR in dB by test set and scale (None if restored pictures
equal their originals), steps and hours.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency import LatencyReport
from benchmarks.report.report import RESTORES_TILES, Report
from training.catalogue import file_stem, history

Record = Mapping[str, Any]
Published = Mapping[tuple[str, str, int], float]
"""PSNR in dB that others published, by model, test set and scale."""


def read_published(path: Path) -> Published:
    """Read published scores from a CSV file: model, test set, scale, PSNR and source."""
    with path.open(encoding="utf-8", newline="") as stream:
        return {
            (row["model"], row["test_set"], int(row["scale"])): float(row["psnr"])
            for row in csv.DictReader(stream)
        }


def scores_table(
    records: Mapping[str, Record],
    baselines: Mapping[int, Mapping[str, float]],
    test_sets: Mapping[str, str],
    published: Published,
) -> str:
    """Return the scores of super-resolution networks beside published and bicubic scores.

    Args:
        records: Training records by model.
        baselines: PSNR of bicubic enlargement, by scale and test set.
        test_sets: Titles of the test sets, in the order of the columns.
        published: Published scores; networks without any show only our scores.
    """
    titles = [f"{title} ours / paper" for title in test_sets.values()]
    lines = [_row("", "scale", *titles, "training"), _row(*["---"] * (3 + len(titles)))]
    for scale, scores in baselines.items():
        lines.append(_row("bicubic", f"×{scale}", *(f"{scores[one]:.2f}" for one in test_sets), ""))
    for model, record in records.items():
        for scale in sorted({int(scale) for row in record["psnr"].values() for scale in row}):
            cells = [_score(model, record, name, scale, published) for name in test_sets]
            lines.append(_row(model, f"×{scale}", *cells, effort(record)))
    return "\n".join(lines)


def shdd_table(
    records: Mapping[str, Record], levels: Mapping[str, str], published: Published
) -> str:
    """Return the scores on SHDD of every level and of every kind of region.

    Where the pictures are untouched the worst one stands in a row of its own, for a network that
    leaves most of them alone may still spoil one.

    Args:
        records: Training records by model. Older ones lack some of the test sets.
        levels: Titles of the test sets, one for each level, in the order of the rows. A set that no
            record has is left out.
        published: Published scores.
    """
    lines = [_row("", "distorted", *records), _row("---", *["---:"] * (1 + len(records)))]
    for name, level in levels.items():
        measured = [record for record in records.values() if name in record["psnr"]]
        if not measured:
            continue
        before = measured[0]["distorted"][name]
        cells = [_score(model, record, name, 1, published) for model, record in records.items()]
        lines.append(_row(level, "" if before is None else f"{before:.2f}", *cells))
        if before is None:
            lines.append(
                _row(f"{level}, worst", "", *(_worst(one, name) for one in records.values()))
            )
    first = next(iter(records.values()))
    for kind, (before, _) in first["kinds"].items():
        cells = [_decibels(record["kinds"][kind][1]) for record in records.values()]
        lines.append(_row(f"{kind} regions", "" if before is None else f"{before:.2f}", *cells))
    lines.append(_row("training", "", *map(effort, records.values())))
    return "\n".join(lines)


def effort(record: Record) -> str:
    """Return the steps and hours of a training record and of all runs before it, each once."""
    runs = history(record)
    steps = sum(run["steps"] for run in runs)
    hours = sum(run["hours"] for run in runs)
    return f"{steps:,} steps, {hours:.1f} h"


def artifacts_table(
    report: Report, test_sets: tuple[str, str], lost_on_second: Mapping[str, float]
) -> str:
    """Return the figures of one network's files.

    Args:
        report: The report of ``ship``.
        test_sets: Titles of the report's test set and of a second one.
        lost_on_second: Loss in dB on the second test set, for each file that runs here.
    """
    latency, (first, second) = report.latency, test_sets
    assert latency is not None
    machine, reference = latency.environment, latency.row(latency.reference or "")
    assert reference is not None
    assert reference.size is not None
    header = ["file", "kB", "max. difference", f"{first} dB", f"lost on {first}"]
    header += [f"lost on {second}", "speed"]
    lines = [
        f"{report.model} ×{report.scale}; {report.task.scoring.psnr_title} on {report.pictures} "
        f"({report.source.psnr:.2f} dB in torch), speed against `{reference.name}` at an input of "
        f"{reference.size[0]}×{reference.size[1]} on {machine.cpu} ({', '.join(machine.simd)}; "
        f"{latency.threads} threads, median of {latency.starts} process starts of {latency.rounds} "
        "interleaved rounds).",
        "",
        _row(*header),
        _row("---", *["---:"] * (len(header) - 1)),
    ]
    for row in report.rows:
        if row.not_run == RESTORES_TILES:
            continue
        name, size, timed = f"`{row.file}`", f"{row.bytes / 1e3:.0f}", latency.row(row.file)
        if row.psnr is None or row.psnr_loss is None or timed is None or timed.speedup is None:
            lines.append(_row(name, size, row.not_run or "", "", "", "", ""))
            continue
        lines.append(
            _row(
                name,
                size,
                f"{row.max_abs_diff:.1e}",
                f"{row.psnr:.2f}",
                f"{row.psnr_loss:.3f}",
                f"{lost_on_second[row.file]:.3f}",
                f"{timed.speedup.median:.2f}×",
            )
        )
    return "\n".join(lines)


def multadds_finding(report: Report, lighter: str, multadds: Mapping[str, int]) -> str:
    """Return a sentence on how much faster a network of fewer MultAdds is, from one run of both.

    Args:
        report: The report of ``ship`` on the heavier network.
        lighter: Name of the lighter network.
        multadds: MultAdds of both networks, at the scale of the report.
    """
    latency, scale, heavier = report.latency, report.scale, report.model
    assert latency is not None
    sentence = (
        f"{lighter.upper()} ×{scale} has {multadds[heavier] / multadds[lighter]:.1f}× fewer "
        f"MultAdds than {heavier.upper()}. With TFLite on this CPU that makes it "
        f"{_gain(latency, heavier, lighter, scale, 'float32'):.2f}× as fast in float32 and "
        f"{_gain(latency, heavier, lighter, scale, 'int8'):.2f}× in int8"
    )
    npu = {row.model: row.estimate for row in report.npu}
    if heavier in npu and lighter in npu:
        one = npu[lighter]
        sentence += (
            f"; on an {one.target.accelerator} NPU at {one.size[0]}×{one.size[1]} "
            f"{npu[heavier].milliseconds / one.milliseconds:.2f}× "
            f"({one.label}, {one.target.system}, {one.target.memory})"
        )
    return sentence + "."


def _gain(latency: LatencyReport, heavier: str, lighter: str, scale: int, precision: str) -> float:
    """Return how many times as fast the lighter network is, from the ratio within each round."""
    slow = latency.row(f"{file_stem(heavier, scale)}_{precision}.tflite")
    fast = latency.row(f"{file_stem(lighter, scale)}_{precision}.tflite")
    assert slow is not None
    assert fast is not None
    pairs = zip(slow.samples_ms, fast.samples_ms, strict=True)
    return float(np.median([a / b for a, b in pairs]))


def _score(model: str, record: Record, test_set: str, scale: int, published: Published) -> str:
    if test_set not in record["psnr"]:
        return ""
    ours, theirs = record["psnr"][test_set][str(scale)], published.get((model, test_set, scale))
    return f"**{_decibels(ours)}**" + ("" if theirs is None else f" / {theirs:.2f}")


def _worst(record: Record, test_set: str) -> str:
    """Return the PSNR of the worst picture of a test set; empty if the record has none."""
    found = record.get("worst", {})
    return _decibels(found[test_set]["1"]) if test_set in found else ""


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.2f}"


def _row(*cells: str) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"
