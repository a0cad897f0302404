"""A run of ``reslite bench``: files on devices, each device by what it can tell.

Devices that time are compared in pairs over process starts (``benchmarks.comparison``); those that
count or estimate are asked once for each file. Everything is kept in the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.blocks import Contender, Recorder
from benchmarks.comparison import (
    Plan,
    checked,
    conditions_of,
    pairs_of,
    plan_for,
    run_blocks,
)
from benchmarks.devices.device import Device, Subject, TimedDevice
from benchmarks.devices.isolated import execute_isolated
from benchmarks.environment import package_versions, read_environment
from benchmarks.latency import Latency
from benchmarks.measurement import Measurement, Role, utc_now
from runtime.errors import UserError
from runtime.manifest import HD, MANIFEST, read_manifest
from runtime.opening import available_cores


def measure_times(
    files: Sequence[Path],
    devices: Sequence[TimedDevice],
    recorder: Recorder,
    *,
    reference: Path | None = None,
    plan: Plan,
    budget: float | None = None,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = False,
) -> list[Latency]:
    """Time files on devices, in pairs with a reference.

    Args:
        files: The files, each once.
        devices: The devices; the reference runs on the first that takes it.
        recorder: Takes every sample.
        reference: One of the files; None for the first that runs.
        plan: Starts and rounds.
        budget: Seconds to choose starts and rounds for, instead of those of the plan.
        threads: CPU threads for each file; None for every available core.
        size: Height and width of the input; None for the size that is restored to 1280 × 720. A
            file of fixed size keeps its size.
        progress: Whether to show a progress bar.

    Returns:
        The files that could not be measured, with their reasons.

    Raises:
        UserError: If none or the reference can be measured, if a file cannot be opened, or if its
            process dies; the recorder has what was measured before.
    """
    with ExitStack() as stack:
        for device in devices:
            stack.callback(device.close)
        return _timed(files, devices, recorder, reference, plan, budget, threads, size, progress)


def _timed(
    files: Sequence[Path],
    devices: Sequence[TimedDevice],
    recorder: Recorder,
    reference: Path | None,
    plan: Plan,
    budget: float | None,
    threads: int | None,
    size: tuple[int, int] | None,
    progress: bool,
) -> list[Latency]:
    contenders = [Contender.of(file, device) for device in devices for file in files]
    runnable = checked(contenders, None if reference is None else str(reference))
    not_run = [
        Latency(one.file, one.device.name, not_run=one.not_run)
        for one in contenders
        if one not in runnable
    ]
    if not runnable:
        raise UserError("; ".join(f"{one.name}: {one.not_run}" for one in not_run))
    base = next(one for one in runnable if reference is None or one.file == str(reference))
    conditions = conditions_of(
        runnable, read_environment(), threads or available_cores(), size, plan.warmup
    )
    pairs = pairs_of(runnable, base)
    if budget is not None:
        plan = plan_for(budget, pairs, conditions)
    run_blocks(pairs, plan, conditions, recorder, progress)
    return not_run


def count_or_estimate(
    files: Sequence[Path],
    devices: Sequence[Device],
    recorder: Recorder,
    *,
    reference: Path | None = None,
) -> list[Latency]:
    """Ask devices that count or estimate what an inference of each file costs.

    Args:
        files: The files, each with its manifest beside it.
        devices: The devices; each tells a cost (``Device.unit``).
        recorder: Takes every figure.
        reference: One of the files, to compare the others with.

    Returns:
        The files that a device does not take or that failed on it, with their reasons.
    """
    not_run = []
    for device in devices:
        missing = device.missing()
        for file in files:
            try:
                if missing is not None:
                    raise UserError(missing)
                role: Role = "reference" if file == reference else "file"
                blank = _asked(file, device)
                placed = dataclasses.replace(
                    blank, run=recorder.run, block=recorder.next_block, role=role
                )
                recorder.begin(placed)
            except UserError as error:
                not_run.append(Latency(str(file), device.name, not_run=f"not run ({error})"))
    return not_run


def _asked(file: Path, device: Device) -> Measurement:
    """Return what a device tells of a file.

    Raises:
        UserError: If it does not take the file, or fails.
    """
    assert device.unit is not None
    subject, network = _subject(file)
    refusal = device.refusal(subject)
    if refusal is not None:
        raise UserError(f"needs {refusal}")
    when = utc_now()
    done = execute_isolated(device, subject, ())
    facts = dict(done.facts)
    height, _, width = str(facts.pop("size")).partition("×")
    for name, count in (done.fallbacks or {}).items():
        facts[f"{name} on the CPU"] = count
    size = (int(height), int(width))
    pixels = size[0] * size[1] * subject.scale**2
    artifact = subject.artifact
    return Measurement(
        run="0" * 32,
        block=0,
        order=0,
        start=0,
        role="file",
        file=str(file),
        sha256=artifact.sha256,
        format=artifact.format,
        precision=artifact.precision,
        network=network,
        scale=subject.scale,
        size=size,
        device=device.name,
        machine=device.title,
        evidence=device.evidence,
        runtime=done.runtime,
        when=when,
        unit=device.unit,
        samples=(float(facts.pop(device.unit)),),
        multadds=artifact.multadds * pixels // (HD[0] * HD[1]),
        versions={**package_versions(), **done.versions},
        facts=facts,
    )


def _subject(file: Path) -> tuple[Subject, str]:
    """Return a file with its manifest's entry, and the name of its network.

    Raises:
        UserError: If it has none.
    """
    if not file.exists():
        raise UserError(f"{file}: no such file; 'reslite export' makes one")
    manifest = read_manifest(file.parent)
    artifact = manifest.artifact(file.name) if manifest else None
    if manifest is None or artifact is None:
        raise UserError(f"needs the {MANIFEST} that reslite wrote beside the file")
    return Subject(file, artifact, manifest.scale, manifest.sides), manifest.model
