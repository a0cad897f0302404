"""Results of ``benchmarks.proof`` as lines for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import get_args

from benchmarks.devices.device import Device, Evidence
from benchmarks.proof import Difference, Row
from benchmarks.report.tables import text_table
from runtime.formats import FORMATS, Format, Precision

_MEANINGS: dict[Evidence, str] = {
    "measured": "a time on the named device",
    "counted": "instructions counted",
    "estimated": "a vendor's cost model",
    "compiled": "the vendor's compiler took the file; nothing was computed",
    "executed": "outputs computed as the device computes them, without a time",
}


def as_list(devices: Sequence[Device]) -> str:
    """Return the devices as a table: name, evidence, files and what is missing."""
    rows = [
        [device.name, device.evidence, ", ".join(device.takes.formats), device.missing() or "ready"]
        for device in devices
    ]
    return text_table(["device", "evidence", "takes", "state"], rows)


def as_line(row: Row) -> str:
    """Return a result as a line of text."""
    if row.outcome == "not taken":
        return f"{row.title}: not taken (needs {row.reason})"
    if row.outcome == "not run":
        return f"{row.title}: not run ({row.reason})"
    if row.outcome == "failed":
        return f"{row.title}: {row.file}: failed ({row.reason})"
    return f"{row.title}: {row.file}: {row.evidence}, {_found(row)}"


def as_markdown(rows: Sequence[Row]) -> str:
    """Return all results: a table for each network and kind of file, then runtimes and failures."""
    parts = [*_tables(rows), _runtimes(rows), *_losses(rows)]
    return "\n\n".join(parts) + "\n"


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    ran = [row for row in rows if row.outcome in ("ran", "failed")]
    for model in dict.fromkeys(row.model for row in ran):
        yield f"## {model}"
        for kind in get_args(Format):
            for fixed in (False, True):
                chosen = [
                    row for row in ran if (row.model, row.format, row.fixed) == (model, kind, fixed)
                ]
                for profile in sorted({row.profile for row in chosen}):
                    yield _table(kind, fixed, [row for row in chosen if row.profile == profile])


def _table(kind: Format, fixed: bool, rows: Sequence[Row]) -> str:
    precisions = [one for one in get_args(Precision) if any(row.precision == one for row in rows)]
    title = f"{FORMATS[kind].title}, {'fixed size' if fixed else 'any size'}"
    if rows[0].profile:
        title += f", profile `{rows[0].profile}`"
    lines = [f"| {title} | {' | '.join(precisions)} |", "| --- |" + " --- |" * len(precisions)]
    for name in dict.fromkeys(row.title for row in rows):
        cells = []
        for precision in precisions:
            found = [row for row in rows if (row.title, row.precision) == (name, precision)]
            cells.append("; ".join(map(_cell, found)) or "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    return "**fails**" if row.outcome == "failed" else _found(row)


def _found(row: Row) -> str:
    words = [_apart(row.difference) if row.difference else "taken"]
    if row.fallbacks:
        words.append(f"{sum(row.fallbacks.values())} operators elsewhere")
    text = ", ".join(words)
    return f"**{text}**" if row.outcome == "ran" and row.problem is not None else text


def _apart(difference: Difference) -> str:
    if difference.decibels is None:
        return "identical"
    return f"{difference.decibels:.1f} dB, {difference.levels:.2g}"


def _runtimes(rows: Sequence[Row]) -> str:
    ran = sorted((row for row in rows if row.outcome == "ran"), key=lambda row: row.title)
    lines = [
        "## Runtimes",
        "",
        "| runtime | evidence | what ran | settings, figures | versions | executed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title, group in groupby(ran, key=lambda row: row.title):
        of_one = list(group)
        last = max(of_one, key=lambda row: row.date)
        common = set.intersection(*(set(row.facts.items()) for row in of_one))
        figures = [last.settings, *(f"{key} {value}" for key, value in sorted(common))]
        versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
        what = "; ".join(dict.fromkeys(row.runtime for row in of_one))
        cells = [title, last.evidence, what, ", ".join(filter(None, figures)), versions, last.date]
        lines.append(f"| {' | '.join(cells)} |")
    kinds = dict.fromkeys(row.evidence for row in ran)
    lines += ["", *(f"*{kind}*: {_MEANINGS[kind]}." for kind in kinds)]
    return "\n".join(lines)


def _losses(rows: Sequence[Row]) -> Iterator[str]:
    problems = list(dict.fromkeys(row.problem for row in rows if row.problem is not None))
    if problems:
        yield "## Not proven"
        yield "\n".join(f"- {_plain(problem)}" for problem in problems)


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
