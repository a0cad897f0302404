"""A run of ``reslite bench``: every file against a reference, over several process starts.

Each start measures every pair of the reference and another file in an order drawn by chance, and
one pair more, the control: the reference and itself in a second process. Its ratio is 1, so that an
interval of it which does not hold 1 says that intervals of this run are too narrow.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from benchmarks.blocks import Conditions, Contender, Member, Recorder, run_block, shuffled
from benchmarks.devices.device import Timing
from benchmarks.environment import Environment, read_environment
from benchmarks.latency import Latency, LatencyReport, latencies_of
from runtime.errors import UserError
from runtime.opening import available_cores

STARTS, ROUNDS, WARMUP = 7, 5, 2

_FEWEST_STARTS, _MOST_STARTS = 3, 15
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 20


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        starts: Process starts of each pair.
        rounds: Timed inferences of each file in a start.
        warmup: Inferences of each file in a start that are not timed.
    """

    starts: int = STARTS
    rounds: int = ROUNDS
    warmup: int = WARMUP


def planned(budget: float, opening: float, rounds: float, warmup: int = WARMUP) -> Plan:
    """Return the plan that makes the best of a time.

    Starts come first, up to what makes an interval, then rounds, then further starts.

    Args:
        budget: Seconds.
        opening: Seconds that one start of all pairs takes to open and warm up the files.
        rounds: Seconds that one round of all pairs takes.
        warmup: As in ``Plan``.
    """

    def fitting(count: int) -> int:
        return int(budget / (opening + count * rounds))

    for count in (ROUNDS, 4, _FEWEST_ROUNDS):
        if fitting(count) >= STARTS:
            break
    starts = min(max(fitting(count), _FEWEST_STARTS), _MOST_STARTS)
    spare = budget / starts - opening
    most = min(max(count, int(spare / rounds)), _MOST_ROUNDS)
    return Plan(starts, most, warmup)


def measure_latency(
    contenders: Sequence[Contender],
    *,
    reference: str | None = None,
    plan: Plan,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = False,
) -> LatencyReport:
    """Time files that all take turns in each start, without a control.

    Several files are compared with each other in this way, not with the reference alone, and less
    is opened; but what takes turns may change the ratios.

    Args:
        contenders: The files, each of its own name.
        reference: Name of the file that the others are compared with.
        plan: Starts and rounds.
        threads: CPU threads for each file; None for every available core.
        size: Height and width of the input; None for the size that is restored to 1280 × 720. A
            file of fixed size keeps its size.
        progress: Whether to show a progress bar (never when stderr is no terminal).

    Raises:
        UserError: If a file cannot be opened or its process dies, if two share a name, or if the
            reference cannot run here.
    """
    runnable = checked(contenders, reference)
    threads = threads or available_cores()
    environment, recorder = read_environment(), Recorder()
    conditions = conditions_of(runnable, environment, threads, size, plan.warmup)
    block: list[Member] = [
        ("reference" if one.file == reference else "file", one) for one in runnable
    ]
    run_blocks([block] if block else [], plan, conditions, recorder, progress)
    found = {(one.file, one.device): one for one in latencies_of(recorder.measurements)}
    rows = [
        found.get((one.file, one.device.name))
        or Latency(one.file, one.device.name, not_run=one.not_run)
        for one in contenders
    ]
    return LatencyReport(
        environment, threads, plan.starts, plan.rounds, plan.warmup, reference, tuple(rows)
    )


def checked(contenders: Sequence[Contender], reference: str | None) -> list[Contender]:
    """Return the contenders that run here.

    Raises:
        UserError: If a file is named twice for one device, or the reference does not run here.
    """
    names = [(one.file, one.device.name) for one in contenders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice[0]}: given twice; time each artifact once")
    runnable = [one for one in contenders if one.not_run is None]
    known = [one.file for one in runnable]
    if reference is not None and reference not in known:
        raise UserError(f"{reference}: cannot run here; choose one of {', '.join(known)}")
    return runnable


def pairs_of(contenders: Sequence[Contender], reference: Contender) -> list[list[Member]]:
    """Return the pairs of a run: the control first, then the reference and each other file."""
    pairs: list[list[Member]] = [[("reference", reference), ("control", reference)]]
    for one in contenders:
        if one != reference:
            pairs.append([("reference", reference), ("file", one)])
    return pairs


def run_blocks(
    blocks: Sequence[Sequence[Member]],
    plan: Plan,
    conditions: Conditions,
    recorder: Recorder,
    progress: bool = False,
) -> None:
    """Measure all blocks in every start.

    Args:
        blocks: The blocks, which are usually pairs.
        plan: Starts and rounds.
        conditions: What all blocks share; their rounds are those of the plan.
        recorder: Takes every sample.
        progress: Whether to show a progress bar (never when stderr is no terminal).

    Raises:
        UserError: If a file cannot be opened or its process dies; what was measured before is kept.
    """
    chance = random.Random(recorder.run)
    conditions = replace(conditions, rounds=plan.rounds)
    total = plan.starts * len(blocks)
    with tqdm(total=total, unit="start", leave=False, disable=None if progress else True) as bar:
        for start in range(plan.starts):
            for block in shuffled(blocks, chance):
                run_block(shuffled(block, chance), start, conditions, recorder)
                bar.update()


def plan_for(budget: float, pairs: Sequence[Sequence[Member]], conditions: Conditions) -> Plan:
    """Return the plan that fits a budget.

    Opens every pair once and runs one round, which is not kept.

    Raises:
        UserError: If a file cannot be opened or its process dies, or if the least that is measured
            takes longer.
    """
    began = time.monotonic()
    once, ignored = replace(conditions, rounds=1), Recorder()
    rounds = sum(run_block(pair, 0, once, ignored) for pair in pairs)
    spent = time.monotonic() - began
    least = spent + _FEWEST_STARTS * (spent + (_FEWEST_ROUNDS - 1) * rounds)
    if least > budget:
        raise UserError(
            f"--budget {budget:g}s: {_FEWEST_STARTS} starts of {_FEWEST_ROUNDS} rounds, the least "
            f"that is measured, take about {math.ceil(1.1 * least)} s here; give more time, fewer "
            "files or a smaller --size"
        )
    return planned(max(budget - spent, 0), spent - rounds, rounds, conditions.timing.warmup)


def conditions_of(
    contenders: Sequence[Contender],
    environment: Environment,
    threads: int,
    size: tuple[int, int] | None,
    warmup: int,
) -> Conditions:
    """Return what all blocks of a run share, of which the rounds are the plan's."""
    facts: dict[str, str | int | float] = {
        "system": environment.system,
        "python": environment.python,
        "cores": environment.cores,
        "available": environment.available,
        "memory_bytes": environment.memory_bytes,
    }
    if environment.load_average is not None:
        facts["load_average"] = environment.load_average
    devices = {one.device.name: one.device for one in contenders}
    return Conditions(
        rounds=0,
        timing=Timing(size, threads, warmup),
        machines={name: device.machine() for name, device in devices.items()},
        facts=facts,
        versions=environment.versions,
    )
