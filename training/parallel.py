"""One network trained by several processes, each on its share of every batch.

Every process draws the same batch, keeps
its share and averages its gradients with the others'; from there on all do the same, so that they
hold the same weights without ever sending any.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed

from runtime.errors import UserError
from training.pictures import Picture
from training.recipe import Recipe

Result = TypeVar("Result")


def run_in_processes(
    lead: Callable[[], Result], assist: Callable[[], object], processes: int, threads: int
) -> Result:
    """Run ``lead`` here and ``assist`` in new processes; both may call the functions below.

    Args:
        lead: What this process does. When it ends, whether well or not, so do the others.
        assist: What the others do; it must be picklable.
        processes: How many there are, this one included.
        threads: CPU threads of each.

    Returns:
        What ``lead`` returned.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(
                target=_assist, args=(assist, meeting, rank, processes, threads), daemon=True
            )
            for rank in range(1, processes)
        ]
        for process in others:
            process.start()
        try:
            _meet(meeting, 0, processes, threads)
            return lead()
        finally:
            for process in others:
                process.terminate()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def check_batches(recipe: Recipe, processes: int) -> None:
    """Check that every batch of a recipe can be shared evenly.

    Raises:
        UserError: If a stage's batch cannot.
    """
    for stage in recipe.stages:
        for size in recipe.batches_of(stage).values():
            if size % processes:
                raise UserError(
                    f"{processes} processes cannot share a batch of {size:.0f} patches evenly; "
                    "choose a number that divides it"
                )


def process_count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_share(batch: Picture) -> Picture:
    """Return this process' part of a batch, N × H × W × 3."""
    return batch[distributed.get_rank() :: process_count()]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; all must have the same ones.

    Raises:
        UserError: If another process has ended.
    """
    gradients = [one.grad for one in parameters if one.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    try:
        distributed.all_reduce(together)
    except RuntimeError as error:
        raise UserError(
            "another process of this training ended, for want of memory perhaps; the steps until "
            "then are kept, the same command goes on from there"
        ) from error
    together /= process_count()
    parts = torch.split(together, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _assist(
    assist: Callable[[], object], meeting: str, rank: int, processes: int, threads: int
) -> None:
    # Ctrl-C reaches every process of a terminal; the first one saves the run and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _meet(meeting, rank, processes, threads)
    # What the person did wrong the first process tells as well.
    with suppress(UserError):
        assist()


def _meet(meeting: str, rank: int, processes: int, threads: int) -> None:
    torch.set_num_threads(threads)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
