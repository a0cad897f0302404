"""Latencies of a run, computed from its measurements alone: medians, ratios and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.environment import Environment
from benchmarks.measurement import Measurement
from benchmarks.ratios import Interval, interval_of, start_ratio

DEFAULT_DEVICE = "cpu"


@dataclass(frozen=True)
class Spread:
    """The middle half of a sample.

    Attributes:
        median: The median.
        lower: The first quartile.
        upper: The third quartile.
    """

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return median and quartiles, interpolated linearly."""
        lower, middle, upper = np.percentile(values, [25, 50, 75])
        return cls(float(middle), float(lower), float(upper))

    @property
    def iqr(self) -> float:
        """The interquartile range."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Latency:
    """The figures of one file on one device; if it could not run, only its names and the reason.

    Attributes:
        file: Name of the file.
        device: Name of the device.
        runtime: Library, version and what really ran the file.
        size: Height and width of the input.
        milliseconds: Latency of one inference, over all samples.
        samples_ms: Every sample, start after start.
        multadds_per_second: Effective rate: MultAdds of the source network at this size, not of the
            lowered file, divided by the median latency.
        peak_memory_bytes: Peak memory of the whole process, the largest of all starts.
        opening_ms: Milliseconds that opening the file takes, its content in the system's cache.
        speedup: How many times as fast as the reference, over the starts; None if the reference's
            input has another size, or nothing is compared.
        start_ratios: The ratio of each start.
        not_run: Reason for missing figures.
    """

    file: str
    device: str = DEFAULT_DEVICE
    runtime: str | None = None
    size: tuple[int, int] | None = None
    milliseconds: Spread | None = None
    samples_ms: tuple[float, ...] = ()
    multadds_per_second: float | None = None
    peak_memory_bytes: int | None = None
    opening_ms: float | None = None
    speedup: Interval | None = None
    start_ratios: tuple[float, ...] = ()
    not_run: str | None = None

    @property
    def name(self) -> str:
        """The file, and the device unless it is this machine's CPU."""
        return self.file if self.device == DEFAULT_DEVICE else f"{self.file} ({self.device})"


@dataclass(frozen=True)
class LatencyReport:
    """The latencies of one run on this machine.

    Attributes:
        environment: The machine, read before the run.
        threads: CPU threads of each file.
        starts: Process starts of each file.
        rounds: Timed inferences of each file in a start.
        warmup: Untimed inferences of each file in a start, before the rounds.
        reference: Name of the file that ``speedup`` compares with, or None.
        rows: The figures, in the order of the files.
    """

    environment: Environment
    threads: int
    starts: int
    rounds: int
    warmup: int
    reference: str | None
    rows: tuple[Latency, ...]

    def row(self, file: str, device: str = DEFAULT_DEVICE) -> Latency | None:
        """Return the row of a file on a device, or None."""
        return next((r for r in self.rows if (r.file, r.device) == (file, device)), None)


def latencies_of(measurements: Sequence[Measurement], files: Sequence[str] = ()) -> list[Latency]:
    """Return a row for each file, device and runtime of one run; a browser has several runtimes.

    A start that broke off before its first sample counts for nothing.

    Args:
        measurements: Measurements in milliseconds, all of one run.
        files: Names of files in the order of the rows; others follow by name.
    """
    full = [one for one in measurements if one.samples and one.role != "control"]
    place = {file: number for number, file in enumerate(files)}
    keys = sorted(set(map(_key, full)), key=lambda key: (place.get(key[0], len(place)), key))
    return [_latency([one for one in full if _key(one) == key], measurements) for key in keys]


def control_of(measurements: Sequence[Measurement]) -> Interval | None:
    """Return the ratio of the reference to itself in a second process; None if there is none."""
    ratios = _ratios([one for one in measurements if one.role == "control"], measurements)
    return interval_of(ratios) if ratios else None


def _key(one: Measurement) -> tuple[str, str, str]:
    return one.file, one.device, one.runtime


def _latency(rows: Sequence[Measurement], run: Sequence[Measurement]) -> Latency:
    first = rows[0]
    samples = tuple(sample for one in rows for sample in one.samples)
    middle = median(samples)
    if first.role == "reference":
        ratios = [1.0 for _ in {one.start for one in rows}]
    else:
        ratios = _ratios(rows, run)
    return Latency(
        file=first.file,
        device=first.device,
        runtime=first.runtime,
        size=first.size,
        milliseconds=Spread.of(samples),
        samples_ms=samples,
        multadds_per_second=None if first.multadds is None else first.multadds / (middle / 1000),
        peak_memory_bytes=_fact(rows, "peak_memory_bytes", max),
        opening_ms=_fact(rows, "opening_ms", median),
        speedup=interval_of(ratios) if ratios else None,
        start_ratios=tuple(ratios),
    )


def _ratios(rows: Sequence[Measurement], run: Sequence[Measurement]) -> list[float]:
    """Return the ratio of each start to the reference in its block, where sizes are equal."""
    references = {one.block: one for one in run if one.role == "reference" and one.samples}
    found = []
    for one in rows:
        reference = references.get(one.block)
        if reference is not None and one.samples and one.size == reference.size:
            found.append(start_ratio(reference.samples, one.samples))
    return found


def _fact(rows: Sequence[Measurement], name: str, chosen: Any) -> Any:
    values = [one.facts[name] for one in rows if isinstance(one.facts.get(name), int | float)]
    return chosen(values) if values else None
