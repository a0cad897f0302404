"""Proof on runtimes of others: every file of a bundle on every device, compared with our reference.

The reference of a file is what its format's own engine makes of it on this CPU, which every export
compares with the network. A file that no engine here runs is compared with the bundle's file of the
same precision, or its float32 file, in another format. Results are kept in the user's cache until
the file, a version of the runtime or the device's module changes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

import runtime
from benchmarks.devices.device import Device, Evidence, Execution, Subject
from benchmarks.devices.isolated import CATALOGUE, execute_isolated
from export.parity import parity_pictures
from export.profiles import DEFAULT_PROFILES
from runtime.cache import cache_folder
from runtime.errors import UserError
from runtime.formats import FORMATS, Format, Precision
from runtime.manifest import MANIFEST, Artifact, Manifest, read_manifest, verify
from runtime.records import read_record, write_record
from runtime.session import FloatPicture

Outcome = Literal["ran", "failed", "not run", "not taken"]
"""``not run``: something is missing on this machine; ``not taken``: no file for this device."""

SIZE = (48, 64)
"""Height and width of the pictures of files that take any size; one further has another size."""
_OTHER_SIZE = (40, 56)
_SCHEMA = 1
_REFERENCES = {"ai-edge-litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}
"""The packages that references are computed with, and their modules."""

LEAST_DECIBELS: Mapping[Precision, float] = {"float32": 50, "float16": 50, "int8": 30}
"""Less is not another rounding but another computation. Runtimes may compute floats of any file in
bfloat16, which keeps 8 bits."""


@dataclass(frozen=True)
class Difference:
    """How far outputs are from the reference, both clamped to [0, 1].

    Attributes:
        decibels: PSNR of the worst picture; None if all outputs are equal to the last bit.
        levels: Largest difference, in quanta of 1/255.
    """

    decibels: float | None
    levels: float


@dataclass(frozen=True)
class Row:
    """A file on a device.

    Attributes:
        model: The network, with its scale.
        file: Name of the file.
        format: Its format.
        precision: Its precision.
        fixed: Whether its height and width are fixed.
        sha256: SHA-256 of the file.
        device: Name of the device.
        title: Its name in tables.
        evidence: Kind of the result.
        outcome: What came of it.
        reason: Why it did not run or failed.
        runtime: Library, version and what really ran the file.
        difference: From the reference; None where nothing was computed.
        fallbacks: How often each operator did not run on the device; None if not told.
        facts: Further figures by name.
        settings: What a user sets to obtain this result.
        versions: Of each library.
        date: Day of the execution, in ISO format.
        profile: The file's target profile; empty for the format's default.
    """

    model: str
    file: str
    format: Format
    precision: Precision
    fixed: bool
    sha256: str
    device: str
    title: str
    evidence: Evidence
    outcome: Outcome
    reason: str = ""
    runtime: str = ""
    difference: Difference | None = None
    fallbacks: Mapping[str, int] | None = None
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    settings: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    profile: str = ""

    @property
    def problem(self) -> str | None:
        """What did not run, failed or is too far off, in a line; None if all is well."""
        where = f"{self.file} on {self.title}"
        if self.outcome == "not run":
            return f"{self.title}: not run ({self.reason})"
        if self.outcome == "failed":
            return f"{where}: {self.reason}"
        if self.difference is None or self.difference.decibels is None:
            return None
        found, least = self.difference.decibels, LEAST_DECIBELS[self.precision]
        return f"{where}: {found:.1f} dB, less than {least:g}" if found < least else None


def prove(
    folder: Path,
    devices: Sequence[Device],
    *,
    catalogue: str = CATALOGUE,
    again: bool = False,
    told: Callable[[Row], None] = lambda row: None,
) -> tuple[Row, ...]:
    """Execute the files of a bundle on devices; what fails does not stop the others.

    Args:
        folder: The bundle.
        devices: The devices.
        catalogue: Module whose ``DEVICES`` holds them.
        again: Whether to execute even what is in the cache.
        told: Called with every row as soon as it is known.

    Returns:
        A row for each file that a device takes, one for a device that takes none, and one for a
        device of which something is missing.

    Raises:
        UserError: If the folder is no bundle, or a file is missing or not the manifest's.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder}: holds no {MANIFEST}; 'reslite ship' makes a bundle")
    subjects = _subjects(folder, manifest)
    if not subjects:
        raise UserError(f"{folder}: lists no file; export the bundle again")
    reference = cache(lambda path: _reference(path, folder, manifest))
    rows = []
    for device in devices:
        for row in _rows(device, manifest, subjects, reference, catalogue, again):
            told(row)
            rows.append(row)
    return tuple(rows)


def failures(rows: Sequence[Row]) -> list[str]:
    """Return what did not run, failed or is too far off, a line each."""
    return list(dict.fromkeys(row.problem for row in rows if row.problem is not None))


def difference_of(
    outputs: Sequence[FloatPicture], references: Sequence[FloatPicture]
) -> Difference:
    """Return the PSNR of the worst picture and the largest difference.

    Raises:
        UserError: If an output has another shape than its reference, or holds NaN.
    """
    worst, largest = math.inf, 0.0
    for output, reference in zip(outputs, references, strict=True):
        if output.shape != reference.shape:
            found, expected = ("×".join(map(str, one.shape)) for one in (output, reference))
            raise UserError(f"returns {found}, expected {expected}")
        if not np.isfinite(output).all():
            raise UserError("returns values that are no numbers (NaN or infinite)")
        apart = np.clip(output, 0, 1).astype(np.float64) - np.clip(reference, 0, 1)
        mean = float(np.square(apart).mean())
        worst = min(worst, -10 * math.log10(mean) if mean else math.inf)
        largest = max(largest, float(np.abs(apart).max()) * 255)
    return Difference(None if math.isinf(worst) else worst, largest)


def _subjects(folder: Path, manifest: Manifest) -> list[Subject]:
    """Return the bundle's files, without those that restore tiles in two passes."""
    whole = [one for one in manifest.artifacts if one.pooling is None]
    for artifact in whole:
        if not (folder / artifact.file).exists():
            raise UserError(f"{folder / artifact.file}: is missing; export the bundle again")
        verify(folder / artifact.file, artifact)
    return [Subject(folder / one.file, one, manifest.scale, manifest.sides) for one in whole]


def _rows(
    device: Device,
    manifest: Manifest,
    subjects: Sequence[Subject],
    reference: Callable[[Path], tuple[list[FloatPicture], list[FloatPicture]]],
    catalogue: str,
    again: bool,
) -> Iterator[Row]:
    taken = [one for one in subjects if device.refusal(one) is None]
    if not taken:
        kinds = [one for one in subjects if one.artifact.format in device.takes.formats]
        reason = device.refusal((kinds or list(subjects))[0]) or ""
        yield replace(_row(device, manifest, subjects[0]), outcome="not taken", reason=reason)
        return
    missing = device.missing()
    if missing is not None:
        yield replace(_row(device, manifest, taken[0]), outcome="not run", reason=missing)
        return
    versions = device.versions()
    for subject in taken:
        blank = replace(_row(device, manifest, subject), versions=versions)
        kept = _place(blank, device)
        row = None if again else _kept(kept)
        if row is None:
            row = _executed(blank, device, subject, reference, catalogue)
            kept.parent.mkdir(parents=True, exist_ok=True)
            # A failure is tried again: the machine may have been too slow, or out of memory.
            if row.outcome == "ran":
                write_record(kept, row, _SCHEMA)
        # What a result of an equal file is called may have changed since.
        yield replace(
            row, model=blank.model, file=blank.file, title=blank.title, profile=blank.profile
        )


def _executed(
    blank: Row,
    device: Device,
    subject: Subject,
    reference: Callable[[Path], tuple[list[FloatPicture], list[FloatPicture]]],
    catalogue: str,
) -> Row:
    pictures, expected = reference(subject.path)
    blank = replace(blank, date=datetime.datetime.now(datetime.UTC).date().isoformat())
    try:
        done: Execution = execute_isolated(device, subject, pictures, catalogue=catalogue)
        apart = None if done.outputs is None else difference_of(done.outputs, expected)
    except UserError as error:
        reason = str(error)
        if device.profile not in (None, subject.artifact.profile):
            reason += f"; try a file that 'reslite export --profile {device.profile}' makes"
        return replace(blank, outcome="failed", reason=reason)
    return replace(
        blank,
        outcome="ran",
        runtime=done.runtime,
        difference=apart,
        fallbacks=done.fallbacks,
        facts=done.facts,
        settings=done.settings,
        versions={**blank.versions, **done.versions},
    )


def _row(device: Device, manifest: Manifest, subject: Subject) -> Row:
    artifact = subject.artifact
    return Row(
        model=f"{manifest.model} ×{manifest.scale}",
        file=artifact.file,
        format=artifact.format,
        precision=artifact.precision,
        fixed=subject.fixed_size is not None,
        sha256=artifact.sha256,
        device=device.name,
        title=device.title,
        evidence=device.evidence,
        outcome="not run",
        profile="" if artifact.profile == DEFAULT_PROFILES[artifact.format] else artifact.profile,
    )


def _reference(
    path: Path, folder: Path, manifest: Manifest
) -> tuple[list[FloatPicture], list[FloatPicture]]:
    """Return the pictures for a file and what it is to make of them."""
    artifact = manifest.artifact(path.name)
    assert artifact is not None
    size = Subject(path, artifact, manifest.scale).fixed_size
    sides = manifest.sides
    fitting = [(sides.fitting(h), sides.fitting(w)) for h, w in (SIZE, _OTHER_SIZE)]
    pictures = parity_pictures(size or fitting[0])
    if size is None:
        pictures += parity_pictures(fitting[1])[:1]
    with runtime.open(folder / _stand_in(artifact, manifest).file, threads=1) as session:
        return pictures, [session.run(picture) for picture in pictures]


def _stand_in(artifact: Artifact, manifest: Manifest) -> Artifact:
    """Return the file itself if its format runs here, else the nearest that does.

    Raises:
        UserError: If none does.
    """
    if FORMATS[artifact.format].runs_here():
        return artifact
    shape = sorted(map(str, artifact.input.shape))
    others = [
        one
        for one in manifest.artifacts
        if FORMATS[one.format].runs_here()
        and one.pooling is None
        and sorted(map(str, one.input.shape)) == shape
    ]
    for precision in (artifact.precision, "float32"):
        found = next((one for one in others if one.precision == precision), None)
        if found is not None:
            return found
    raise UserError(
        f"{artifact.file}: nothing to compare it with; export the bundle with its float32 file"
    )


def _place(row: Row, device: Device) -> Path:
    """Return the cache's file for a row, named after all that the result depends on."""
    module = sys.modules[type(device).__module__].__file__
    code = Path(module).read_text(encoding="utf-8") if module else ""
    references = {one: metadata.version(one) for one in _REFERENCES if find_spec(_REFERENCES[one])}
    facts = [row.sha256, row.device, dict(sorted(row.versions.items())), references, code]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache_folder() / "proof" / f"{row.device}_{digest[:24]}.json"


def _kept(path: Path) -> Row | None:
    try:
        return read_record(path, Row, _SCHEMA, "delete it")
    except (FileNotFoundError, NotADirectoryError, UserError):
        return None  # a damaged result is made again
