"""What ``reslite bench`` prints: a table for each kind of evidence, ratios before times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.latency import (
    DEFAULT_DEVICE,
    Latency,
    control_of,
    latencies_of,
)
from benchmarks.measurement import Measurement
from benchmarks.ratios import Interval
from benchmarks.report.tables import text_table

BUSY = 0.1
"""Share of the processor that others may take while latencies are measured."""

_MEASURED = "measured"


def run_text(
    measurements: Sequence[Measurement],
    not_run: Sequence[Latency] = (),
    files: Sequence[str] = (),
) -> str:
    """Return the tables of a run.

    Args:
        measurements: The measurements of one run.
        not_run: Files that could not be measured, with their reasons.
        files: Names of files in the order of the rows; others follow by name.
    """
    kinds = dict.fromkeys(one.evidence for one in measurements)
    parts = []
    for kind in sorted(kinds, key=lambda one: one != _MEASURED):
        chosen = [one for one in measurements if one.evidence == kind]
        text = _measured(chosen, files) if kind == _MEASURED else _others(chosen)
        parts.append(text)
    if not_run:
        parts.append("\n".join(f"{one.name}: {one.not_run}" for one in not_run))
    return "\n\n".join(parts)


def run_json(
    measurements: Sequence[Measurement],
    not_run: Sequence[Latency] = (),
    files: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a run for machines: its rows, each with its evidence, and the control.

    Args:
        measurements: The measurements of one run.
        not_run: Files that could not be measured, with their reasons.
        files: As for ``run_text``.
    """
    measured = [one for one in measurements if one.evidence == _MEASURED]
    others = [one for one in measurements if one.evidence != _MEASURED]
    references = {one.file for one in measured if one.role == "reference"}
    control = control_of(measured)
    rows: list[dict[str, Any]] = [
        {"name": one.name, "evidence": _MEASURED, **dataclasses.asdict(one)}
        for one in latencies_of(measured, files)
    ]
    rows += [
        {
            "name": Latency(one.file, one.device).name,
            "evidence": one.evidence,
            "file": one.file,
            "device": one.device,
            "machine": one.machine,
            "runtime": one.runtime,
            "size": one.size,
            one.unit: one.samples[0] if one.samples else None,
            "facts": dict(one.facts),
        }
        for one in others
    ]
    rows += [{"name": one.name, **dataclasses.asdict(one)} for one in not_run]
    return {
        "run": measurements[0].run if measurements else None,
        "reference": next(iter(references), None),
        "machines": {one.device: one.machine for one in measurements},
        "threads": measured[0].threads if measured else None,
        "starts": 1 + max((one.start for one in measured), default=-1),
        "rounds": max((len(one.samples) for one in measured), default=0),
        "load": _load(measured),
        "control": None if control is None else dataclasses.asdict(control),
        "rows": rows,
    }


def _measured(measurements: Sequence[Measurement], files: Sequence[str]) -> str:
    rows = latencies_of(measurements, files)
    if not rows:
        return "measured: the run broke off before its first sample"
    reference = next((one for one in measurements if one.role == "reference"), None)
    header = ["file", "speed", "median ms", "IQR ms", "input"]
    header += ["GMultAdds/s", "peak MB", "opening ms"]
    cells = [_cells(row, reference) for row in rows]
    if len(rows) > len({(row.device, row.file) for row in rows}):
        header.insert(1, "runtime")
        cells = [
            [one[0], row.runtime or "", *one[1:]] for row, one in zip(rows, cells, strict=True)
        ]
    if {row.device for row in rows} != {DEFAULT_DEVICE}:
        header.insert(1, "device")
        cells = [[one[0], row.device, *one[1:]] for row, one in zip(rows, cells, strict=True)]
    return "\n".join(
        [
            *_head(measurements),
            text_table(header, cells),
            *_foot(rows, reference, control_of(measurements)),
        ]
    )


def _head(measurements: Sequence[Measurement]) -> list[str]:
    lines = []
    for device, machine in {one.device: one.machine for one in measurements}.items():
        of_one = [one for one in measurements if one.device == device]
        threads = of_one[0].threads
        lines.append(
            f"measured on {machine}"
            + (f", {device}" if device != DEFAULT_DEVICE else "")
            + (f", threads: {threads}" if threads else "")
        )
    load = _load(measurements)
    if load is not None:
        lines.append(f"before a start {load:.0%} of the processor was busy with something else")
        if load >= BUSY:
            lines.append("Warning: that much load disturbs; the times are not to be trusted.")
    return lines


def _foot(
    rows: Sequence[Latency], reference: Measurement | None, control: Interval | None
) -> list[str]:
    if reference is None:
        return []
    counts = {row.speedup.starts for row in rows if row.speedup is not None}
    starts = max(counts, default=1)
    lines = [
        f"speed: against {reference.file}, median ratio of {starts} process "
        f"{'start' if starts == 1 else 'starts'}; {_interval_meaning(starts)}"
    ]
    if any(row.size != reference.size for row in rows):
        lines.append("no speed is told where the input has another size than the reference's")
    if control is not None:
        lines.append(f"control: {reference.file} against itself {_ratio(control)}")
        if control.known and not control.holds_one:
            lines.append(
                "Warning: two processes of the same file were told apart; differences of this size "
                "mean nothing here. Measure again with more --starts, and nothing else running."
            )
    return lines


def _interval_meaning(starts: int) -> str:
    if starts == 1:
        return "one start tells no interval"
    if Interval(1, 1, 1, starts).known:
        return "in brackets its 95 % interval; ~ where that holds 1"
    return "in brackets the range (fewer than 6 starts tell no 95 % interval); ~ where that holds 1"


def _cells(row: Latency, reference: Measurement | None) -> list[str]:
    assert row.milliseconds is not None
    assert row.size is not None
    same = reference is not None and (row.file, row.device) == (reference.file, reference.device)
    speed = "1.00×" if same else "" if row.speedup is None else _ratio(row.speedup)
    rate, memory = row.multadds_per_second, row.peak_memory_bytes
    return [
        row.file,
        speed,
        f"{row.milliseconds.median:.2f}",
        f"{row.milliseconds.iqr:.2f}",
        f"{row.size[0]}×{row.size[1]}",
        "" if rate is None else f"{rate / 1e9:.1f}",
        "" if memory is None else f"{memory / 1e6:.0f}",
        "" if row.opening_ms is None else f"{row.opening_ms:.0f}",
    ]


def _ratio(interval: Interval) -> str:
    if interval.starts == 1:
        return f"{interval.median:.2f}×"
    sign = " ~" if interval.holds_one else ""
    return f"{interval.median:.2f}× ({interval.lower:.2f}–{interval.upper:.2f}){sign}"


def _others(measurements: Sequence[Measurement]) -> str:
    first = measurements[0]
    reference = next((one for one in measurements if one.role == "reference"), first)
    ratio = "speed" if first.unit == "ms" else "fewer"  # fewer instructions are no speed
    header = ["file", "device", ratio, first.unit, "input", "what else is told"]
    cells = [
        [
            one.file,
            one.device,
            _cost_ratio(reference, one),
            _cost(one),
            f"{one.size[0]}×{one.size[1]}",
            ", ".join(_fact(name, value) for name, value in one.facts.items()),
        ]
        for one in measurements
    ]
    if not any(one.samples for one in measurements):  # executed or compiled: there is no cost
        header, cells = [*header[:2], *header[4:]], [[*one[:2], *one[4:]] for one in cells]
    runtimes = ", ".join(dict.fromkeys(one.runtime for one in measurements))
    return f"{first.evidence}, not timed: {runtimes}\n{text_table(header, cells)}"


def _cost(one: Measurement) -> str:
    if not one.samples:
        return ""
    return f"{one.samples[0]:,.3f}" if one.unit == "ms" else f"{one.samples[0]:,.0f}"


def _cost_ratio(reference: Measurement, one: Measurement) -> str:
    same = (one.device, one.size) == (reference.device, reference.size)
    if not same or not one.samples or not reference.samples:
        return ""
    return f"{reference.samples[0] / one.samples[0]:.2f}×"


def _fact(name: str, value: str | int | float) -> str:
    return f"{name} {value}" if isinstance(value, str) else f"{value:,} {name}"


def _load(measurements: Sequence[Measurement]) -> float | None:
    loads = [one.load for one in measurements if one.load is not None]
    return median(loads) if loads else None
