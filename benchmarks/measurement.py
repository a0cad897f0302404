"""A measurement: what one process start of one file on one device gave, with every sample.

It is the record that ``benchmarks.store`` keeps, that other machines, phones and browsers send, and
that tables are made of. A run is one call of ``reslite bench``; a block is what ran side by side in
it, inference after inference in turn, so that ratios are taken between the samples of a block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

from benchmarks.devices.device import Evidence, Unit

Role = Literal["file", "reference", "control"]
"""``reference``: the other files of the block are compared with it; ``control``: the reference once
more, in a second process, whose ratio shows what a difference of nothing looks like."""

_TEXT = 1000  # characters; what a browser or a phone tells of itself is shorter
_MOST_SAMPLES = 100_000


@dataclass(frozen=True)
class Measurement:
    """One process start of a file on a device.

    Attributes:
        run: Name of the run: 32 hexadecimal digits, drawn by chance.
        block: Number of the block within the run, from 0.
        order: Place within the block, from 0: who takes the first turn.
        start: Number of the process start of this file in its comparison, from 0.
        role: What the file is within the block.
        file: Name of the file.
        sha256: SHA-256 of the file, or of a folder's contents (``runtime.manifest.sha256_of``).
        format: Format of the file.
        precision: Precision of the file; empty if it has no manifest.
        network: Name of the network; empty if it has no manifest.
        scale: Upscaling factor of the network.
        size: Height and width of the input.
        device: Name of the device, as ``--device`` takes it.
        machine: What the device is: model of the processor, the phone, the browser's adapter.
        evidence: Kind of the samples.
        runtime: Library, version and what really ran the file.
        when: Time of the start: UTC in ISO format to the second, for example
            ``"2026-12-01T14:05:09+00:00"``.
        unit: Unit of the samples.
        samples: Every sample, in the order they were taken; sample k of the files of a block were
            taken in the same round.
        threads: CPU threads; None if the device does not tell.
        load: Share of the processor that was busy with other things before the start, in [0, 1];
            None if unknown.
        multadds: MultAdds of the network at this input size; None if unknown.
        versions: Version of each library, driver or compiler that the result depends on.
        facts: Further facts of the machine and the start by name, for example governor, thermal
            state, opening time or peak memory.

    Raises:
        ValueError: If a value is out of its range; samples must be positive and finite.
    """

    run: str
    block: int
    order: int
    start: int
    role: Role
    file: str
    sha256: str
    format: str
    precision: str
    network: str
    scale: int
    size: tuple[int, int]
    device: str
    machine: str
    evidence: Evidence
    runtime: str
    when: str
    unit: Unit = "ms"
    samples: tuple[float, ...] = ()
    threads: int | None = None
    load: float | None = None
    multadds: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(re.fullmatch(r"[0-9a-f]{32}", self.run), "run", self.run, "32 hexadecimal digits")
        _check(
            re.fullmatch(r"[0-9a-f]{64}", self.sha256), "sha256", self.sha256, "a file's SHA-256"
        )
        for name in ("block", "order", "start"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("file", "device"):
            _check(getattr(self, name), name, getattr(self, name), "a name")
        for name in ("role", "evidence", "unit"):
            choices = get_args({"role": Role, "evidence": Evidence, "unit": Unit}[name])
            _check(getattr(self, name) in choices, name, getattr(self, name), " or ".join(choices))
        for name in ("file", "format", "precision", "network", "device", "machine", "runtime"):
            length = len(getattr(self, name))
            _check(length <= _TEXT, name, f"{length} characters", f"at most {_TEXT}")
        _check(self.scale >= 1, "scale", self.scale, "1 or more")
        _check(min(self.size) >= 1, "size", self.size, "a height and a width of 1 or more")
        _check(_is_utc(self.when), "when", self.when, "a time in UTC in ISO format")
        check_samples(self.samples)
        _check(len(self.samples) <= _MOST_SAMPLES, "samples", len(self.samples), "fewer")
        _check(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
        _check(self.load is None or 0 <= self.load <= 1, "load", self.load, "0 to 1")
        _check(self.multadds is None or self.multadds >= 0, "multadds", self.multadds, "0 or more")


def check_samples(samples: tuple[float, ...]) -> None:
    """Check that samples are positive and finite.

    Raises:
        ValueError: If one is not.
    """
    for sample in samples:
        _check(math.isfinite(sample) and sample > 0, "samples", sample, "positive and finite")


def utc_now() -> str:
    """Return the time as ``Measurement.when`` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_utc(text: str) -> bool:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except ValueError:
        return False
    return offset is not None and not offset


def _check(holds: object, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {found!r}, expected {expected}")
