"""The store as text: its runs, two runs compared, and every sample as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.measurement import Measurement
from benchmarks.ratios import Interval, unpaired_interval
from benchmarks.report.tables import text_table
from benchmarks.store import runs_of
from runtime.errors import UserError

_LONGEST = 48  # characters of a list of names


def runs_text(measurements: Sequence[Measurement]) -> str:
    """Return a line for each run, the latest last."""
    rows = []
    for run, of_run in runs_of(measurements).items():
        files = sorted({file_name(one.file) for one in of_run})
        rows.append(
            [
                run[:8],
                of_run[0].when.replace("T", " ").removesuffix("+00:00"),
                ", ".join(dict.fromkeys(one.device for one in of_run)),
                ", ".join(dict.fromkeys(one.evidence for one in of_run)),
                str(1 + max(one.start for one in of_run)),
                str(sum(len(one.samples) for one in of_run)),
                _shortened(", ".join(files)),
            ]
        )
    header = ["run", "when (UTC)", "devices", "evidence", "starts", "samples", "files"]
    return text_table(header, rows)


def comparison_text(before: Sequence[Measurement], after: Sequence[Measurement]) -> str:
    """Return how the files that two runs share changed from one to the other.

    The runs were not interleaved, so that whatever else changed is in the ratio, too.

    Raises:
        UserError: If they share no file on one device at one size.
    """
    first, second = _starts(before), _starts(after)
    shared = [key for key in first if key in second]
    if not shared:
        raise UserError(
            "these runs share no file on one device at one size; 'reslite bench show' lists them"
        )
    rows = []
    for key in shared:
        file, device, evidence, unit, size, runtime = key
        earlier, later = first[key], second[key]
        rows.append(
            [
                file,
                f"{device} {runtime}".strip(),
                evidence,
                _ratio(unpaired_interval(earlier.medians, later.medians)),
                f"{median(earlier.medians):,.2f}",
                f"{median(later.medians):,.2f}",
                unit,
                size,
                "" if earlier.sha256 == later.sha256 else "another file of this name",
            ]
        )
    header = ["file", "device", "evidence", "ratio", "before", "after", "unit", "input", ""]
    lines = [text_table(header, rows)]
    lines += sorted(
        f"on different machines: {first[key].machine} and {second[key].machine}"
        for key in {key[1]: key for key in shared}.values()
        if first[key].machine != second[key].machine
    )
    lines.append(
        "ratio: before by after, medians of starts (95 % interval where both have six starts; ~ "
        "where it holds 1). The runs did not take turns: what else changed is in it, too."
    )
    return "\n".join(lines)


def samples_csv(measurements: Sequence[Measurement]) -> str:
    """Return every sample on a line of its own, with all that is known of it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = (
        *("run", "block", "order", "start", "role", "file", "sha256", "format", "precision"),
        *("network", "scale", "device", "machine", "evidence", "runtime", "when", "unit"),
        *("threads", "load", "multadds"),
    )
    writer.writerow([*names, "height", "width", "versions", "facts", "round", "sample"])
    for one in measurements:
        values = [getattr(one, name) for name in names]
        told = [json.dumps(dict(each), ensure_ascii=False) for each in (one.versions, one.facts)]
        for number, sample in enumerate(one.samples):
            writer.writerow([*values, *one.size, *told, number, repr(sample)])
    return stream.getvalue()


_Key = tuple[str, str, str, str, str, str]


@dataclass
class _Starts:
    """What one run has of a file: the median of each start, the file's hash and the machine."""

    sha256: str
    machine: str
    medians: list[float] = field(default_factory=list)


def _starts(run: Sequence[Measurement]) -> dict[_Key, _Starts]:
    """Return the starts of each file by what can be compared."""
    full = [one for one in run if one.samples]
    runtimes: dict[tuple[str, str], set[str]] = {}
    for one in full:
        runtimes.setdefault((one.file, one.device), set()).add(one.runtime)
    found: dict[_Key, _Starts] = {}
    for one in full:
        size = f"{one.size[0]}×{one.size[1]}"
        # A browser has several runtimes; elsewhere another version is what is compared.
        runtime = one.runtime if len(runtimes[one.file, one.device]) > 1 else ""
        key = (file_name(one.file), one.device, one.evidence, one.unit, size, runtime)
        starts = found.setdefault(key, _Starts(one.sha256, one.machine))
        starts.medians.append(median(one.samples))
    return found


def _ratio(interval: Interval) -> str:
    if not interval.known:
        return f"{interval.median:.2f}×"
    sign = " ~" if interval.holds_one else ""
    return f"{interval.median:.2f}× ({interval.lower:.2f}–{interval.upper:.2f}){sign}"


def file_name(path: str) -> str:
    """Return the last part of a file's name, of this system or another."""
    return path.replace("\\", "/").rpartition("/")[2]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
