"""Blocks: files that take turns, inference after inference, each in a fresh start of its own.

A run consists of blocks. In each, the files are opened anew in an order drawn by chance and timed
round after round (A B A B …), so that other load on the machine hits all of them alike. Usually a
block holds a pair, the reference and one other file: what else is measured changes nothing in it.
Every sample goes to the store when it is taken.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.devices.device import Timed, TimedDevice, Timing
from benchmarks.environment import package_versions, read_load
from benchmarks.measurement import Measurement, Role, utc_now
from benchmarks.store import Store
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX, FORMATS
from runtime.manifest import HD, Artifact, Manifest, read_manifest, sha256_of, verify

Member = tuple[Role, "Contender"]

Item = TypeVar("Item")

_LOAD_SECONDS = 0.2


@dataclass(frozen=True)
class Contender:
    """A file to measure on a device.

    Attributes:
        path: The file, or the folder of a Core ML package.
        device: The device.
        artifact: The file's entry in the manifest beside it, or None.
        network: Name of the network, if the manifest says it.
        file: Name of the file in results.
        sha256: SHA-256 of the file; empty if there is no such file.
    """

    path: Path
    device: TimedDevice
    artifact: Artifact | None = None
    network: str = ""
    file: str = ""
    sha256: str = ""

    @classmethod
    def of(cls, path: Path, device: TimedDevice, file: str = "") -> Contender:
        """Return a file with what the manifest beside it says of it.

        Args:
            path: The file.
            device: The device.
            file: Name in results, if not the path.

        Raises:
            UserError: If the manifest is damaged, or the file is not the one it describes.
        """
        manifest = read_manifest(path.parent)
        artifact = manifest.artifact(path.name) if manifest else None
        network = manifest.model if manifest and artifact else ""
        if artifact is not None and path.exists():
            verify(path, artifact)  # and again at each start, for files may change meanwhile
        known = artifact.sha256 if artifact else sha256_of(path) if path.exists() else ""
        return cls(path, device, artifact, network, file or str(path), known)

    @property
    def format(self) -> str:
        """Format of the file, by its suffix; empty if that is unknown."""
        kind = BY_SUFFIX.get(self.path.suffix.lower())
        return next((name for name, one in FORMATS.items() if one is kind), "")

    @property
    def not_run(self) -> str | None:
        """Why it cannot be measured here, or None."""
        missing = self.device.missing()
        return f"not run ({missing})" if missing else self.device.untimed(self.path)


def contenders_of(folder: Path, manifest: Manifest, device: TimedDevice) -> list[Contender]:
    """Return the files of a bundle, without those that restore tiles.

    These run in two passes, and the latency of one would mislead.
    """
    return [
        Contender(folder / one.file, device, one, manifest.model, one.file, one.sha256)
        for one in manifest.artifacts
        if one.pooling is None
    ]


class Recorder:
    """What a run has measured so far, in memory and in a store.

    Args:
        store: The store; None to keep measurements in memory alone.
        told: Called once with the reason if the store can no longer be written; the run goes on.
    """

    def __init__(
        self, store: Store | None = None, told: Callable[[str], None] = lambda line: None
    ) -> None:
        self.run = uuid.uuid4().hex
        self._store, self._told = store, told
        self._path = store.path if store is not None else None
        self._begun: list[Measurement] = []
        self._keys: list[int | None] = []

    @property
    def stored(self) -> Path | None:
        """The store that has everything so far; None if there is none, or it failed."""
        return self._path

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    @property
    def measurements(self) -> list[Measurement]:
        """The measurements in the order they were begun."""
        return list(self._begun)

    @property
    def next_block(self) -> int:
        """Number of the next block of the run."""
        return 1 + max((one.block for one in self._begun), default=-1)

    def begin(self, measurement: Measurement) -> int:
        """Keep a measurement without samples; returns the number to add to."""
        self._begun.append(measurement)
        self._keys.append(None)
        self._write(lambda store: self._remember(store.begin(measurement)))
        return len(self._begun) - 1

    def append(self, number: int, sample: float) -> None:
        """Keep the next sample of a measurement.

        Raises:
            UserError: If it is no time that can be.
        """
        known, key = self._begun[number], self._keys[number]
        try:
            self._begun[number] = replace(known, samples=(*known.samples, sample))
        except ValueError as error:
            raise UserError(f"{known.file} on {known.device}: {error}; not a time") from error
        if key is not None:
            self._write(lambda store: store.append(key, sample))

    def note(self, number: int, facts: Mapping[str, str | int | float]) -> None:
        """Keep further facts of a measurement."""
        known, key = self._begun[number], self._keys[number]
        self._begun[number] = replace(known, facts={**known.facts, **facts})
        if key is not None:
            self._write(lambda store: store.note(key, **facts))

    def _remember(self, key: int) -> None:
        self._keys[-1] = key

    def _write(self, action: Callable[[Store], None]) -> None:
        if self._store is None:
            return
        try:
            action(self._store)
        except UserError as error:
            self._store.close()
            self._store = self._path = None
            self._told(f"results are no longer stored: {error}")


@dataclass(frozen=True)
class Conditions:
    """What all blocks of a run share.

    Attributes:
        rounds: Timed inferences of each file in a block.
        timing: How each file is opened.
        machines: What each device is, by its name.
        facts: Facts of this machine that are stored with each measurement.
        versions: Versions of the packages here.
    """

    rounds: int
    timing: Timing
    machines: Mapping[str, str]
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=package_versions)


def run_block(
    members: Sequence[Member], start: int, conditions: Conditions, recorder: Recorder
) -> float:
    """Open the files of a block afresh and time them in turn.

    Args:
        members: Roles and files, in the order of their turns.
        start: Number of the start.
        conditions: What all blocks share.
        recorder: Takes every sample.

    Returns:
        Seconds that the rounds took, without opening.

    Raises:
        UserError: If a file cannot be opened or its process dies.
    """
    load, number = read_load(_LOAD_SECONDS), recorder.next_block
    with ExitStack() as stack:
        turns: list[tuple[Timed, int]] = []
        for order, (role, contender) in enumerate(members):
            timed = stack.enter_context(contender.device.opened(contender.path, conditions.timing))
            blank = _blank(contender, timed, conditions)
            placed = replace(
                blank, run=recorder.run, block=number, order=order, start=start, role=role
            )
            felt = load if contender.device.here else None
            turns.append((timed, recorder.begin(replace(placed, load=felt))))
        began = time.monotonic()
        for _ in range(conditions.rounds):
            for timed, key in turns:
                recorder.append(key, timed.time_one())
        seconds = time.monotonic() - began
        for timed, key in turns:
            recorder.note(key, timed.finish())
    return seconds


def shuffled(items: Sequence[Item], chance: random.Random) -> list[Item]:
    """Return the items in an order drawn by chance."""
    return chance.sample(list(items), len(items))


def _blank(contender: Contender, timed: Timed, conditions: Conditions) -> Measurement:
    artifact = contender.artifact
    pixels = timed.size[0] * timed.size[1] * timed.scale**2
    return Measurement(
        run="0" * 32,
        block=0,
        order=0,
        start=0,
        role="file",
        file=contender.file,
        sha256=contender.sha256,
        format=contender.format,
        precision=artifact.precision if artifact else "",
        network=contender.network,
        scale=timed.scale,
        size=timed.size,
        device=contender.device.name,
        machine=conditions.machines[contender.device.name],
        evidence="measured",
        runtime=timed.runtime,
        when=utc_now(),
        threads=conditions.timing.threads,
        multadds=artifact.multadds * pixels // (HD[0] * HD[1]) if artifact else None,
        versions=conditions.versions,
        facts={**conditions.facts, **timed.facts},
    )
