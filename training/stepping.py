"""One optimizer step of a run, taken as it is or replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from training.data.batches import Batch, draw_batches
from training.data.patches import PatchSource
from training.losses.loss import Patches
from training.recipe import Stage
from training.revival import revive_dead_channels
from training.run import Run, schedule

_PROBED_STEPS = 16
"""A channel is dead if it is positive nowhere in the patches of this many steps."""
_EAGER_STEPS = 3
"""Steps before a graph is recorded: they choose cuDNN's kernels and create the moments."""


def train_step(run: Run, batches: Sequence[Batch]) -> Tensor:
    """Take one optimizer step on patches of one or several scales and return the loss."""
    loss = _descend(run, batches, schedule(run.recipe, run.step), _renewal(run), _turn(run))
    run.step += 1
    return loss


def step_taker(run: Run, graphs: bool = True) -> Callable[[Sequence[Batch]], Tensor]:
    """Return the function that takes a step of a run: ``train_step``, or CUDA graphs of it."""
    if graphs and run.device.type == "cuda":
        return GraphedSteps(run)
    return partial(train_step, run)


class GraphedSteps:
    """Takes the steps of a run on CUDA by replaying a graph of all their kernels.

    A step of CARN launches about a thousand kernels, most of which end before Python launches the
    next. Patches and rates, which change from step to step, are copied into the graph's memory. A
    graph is recorded for every shape of the batches and every turn of the large kernels, after a
    few steps without a graph.

    Args:
        run: The run to step; its parameters, moments and averages keep their addresses in memory.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        # torch leaves the constructor untyped.
        self._stream = torch.cuda.Stream(run.device)  # type: ignore[no-untyped-call]
        self._stage: Stage | None = None
        self._graphs: dict[tuple[int, ...], _Graph] = {}
        self._eager: dict[tuple[int, ...], int] = {}

    def __call__(self, batches: Sequence[Batch]) -> Tensor:
        """Take one optimizer step and return the loss, as ``train_step`` does."""
        run = self._run
        stage = run.recipe.stage_at(run.step)
        if stage != self._stage:
            torch.cuda.synchronize(run.device)  # the last replay may still run
            self._stage, self._graphs, self._eager = stage, {}, {}
        kind = (*(batch.scale for batch in batches), _turn(run))
        current = torch.cuda.current_stream(run.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            if self._eager.get(kind, 0) < _EAGER_STEPS:
                self._eager[kind] = self._eager.get(kind, 0) + 1
                loss = _with_measured_kernels(lambda: train_step(run, batches))
            else:
                if kind not in self._graphs:
                    self._graphs[kind] = _Graph(run, batches, self._stream)
                loss = self._graphs[kind].replay(batches)
        current.wait_stream(self._stream)
        return loss


class _Graph:
    """The kernels of one step on batches of one shape."""

    def __init__(self, run: Run, batches: Sequence[Batch], stream: torch.cuda.Stream) -> None:
        self._run = run
        self._batches = [batch.on(run.device) for batch in batches]
        self._rate, self._renewal = (torch.zeros((), device=run.device) for _ in range(2))
        self._graph = torch.cuda.CUDAGraph()
        # Other threads pin memory for coming batches meanwhile, which a global capture forbids.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._loss = _descend(run, self._batches, self._rate, self._renewal, _turn(run))

    def replay(self, batches: Sequence[Batch]) -> Tensor:
        for ours, theirs in zip(self._batches, batches, strict=True):
            for window, drawn in zip(ours.windows, theirs.windows, strict=True):
                window.copy_(drawn, non_blocking=True)
        self._rate.fill_(schedule(self._run.recipe, self._run.step))
        self._renewal.fill_(_renewal(self._run))
        self._graph.replay()
        self._run.step += 1
        return self._loss.clone()


def revive(run: Run, source: PatchSource) -> int:
    """Revive the channels that are dead in the next steps' patches, and return their number.

    The new kernels depend on the recipe's seed and the step alone.
    """

    def show_patches() -> None:
        for step in range(run.step, run.step + _PROBED_STEPS):
            batches = draw_batches(run.recipe, source, step)
            with _precision(run):
                run.network.restore_scales(_low([batch.on(run.device) for batch in batches]))

    random = np.random.default_rng((run.recipe.seed, run.step, 1))
    return revive_dead_channels(run.network, show_patches, random)


def _descend(
    run: Run,
    batches: Sequence[Batch],
    rate: float | Tensor,
    renewal: float | Tensor,
    turn: int,
) -> Tensor:
    """Step along the gradient of the loss on some patches.

    Only the arguments depend on the number of the step, so that a CUDA graph can record the call.

    Args:
        run: Its parameters, moments and averages are changed in place.
        batches: The patches.
        rate: Fraction of the recipe's learning rates.
        renewal: Weight of the new parameters in the average, 0 to 1.
        turn: Turn of the large kernels to update.

    Returns:
        The loss.
    """
    parameters: list[Tensor] = list(run.network.parameters())
    run.optimizer.zero_grad()
    loss = _loss(run, [batch.on(run.device) for batch in batches])
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(parameters, run.recipe.optimizer.clip_norm)
    run.optimizer.step(rate, turn)
    with torch.no_grad():
        averages = list(run.average.values())
        changes = torch._foreach_sub(parameters, averages)
        torch._foreach_mul_(changes, renewal)
        torch._foreach_add_(averages, changes)
    return loss.detach()


def _renewal(run: Run) -> float:
    """Return the weight in the average of the parameters after the next step, 0 to 1."""
    step = run.step + 1
    return 1 - min(run.recipe.optimizer.ema, step / (step + 10))


def _turn(run: Run) -> int:
    """Return the turn of the large kernels at the next step."""
    return run.step % run.recipe.optimizer.large_kernels_every


def _loss(run: Run, batches: Sequence[Batch]) -> Tensor:
    """Return the loss of some patches; opponents, if any, take their step on them before."""
    asks = any(one.asks_what_was_untouched for one in run.recipe.losses)
    with _precision(run):
        restored = run.restore(_low(batches))
    seen = []
    for batch in batches:
        untouched = (batch.low == batch.high).all(3) if asks else None
        seen.append(Patches(restored[batch.scale].float(), _to_picture(batch.high), untouched))
    if run.opponent is not None:
        run.opponent.learn(seen)
    losses = []
    for batch, patches in zip(batches, seen, strict=True):
        losses += [batch.weight * weight * measure(patches) for weight, measure in run.losses]
        if run.opponent is not None:
            losses.append(batch.weight * run.opponent.judge(patches))
    return torch.stack(losses).sum()


def _precision(run: Run) -> torch.autocast:
    return torch.autocast(
        run.device.type, torch.bfloat16, enabled=run.recipe.execution.precision == "bf16"
    )


def _low(batches: Sequence[Batch]) -> dict[int, Tensor]:
    return {batch.scale: _to_picture(batch.low) for batch in batches}


def _to_picture(patches: Tensor) -> Tensor:
    """Turn N × H × W × 3 uint8 into N × 3 × H × W float in [0, 1], channels last in memory."""
    return patches.permute(0, 3, 1, 2).float().div(255)


def _with_measured_kernels(take_step: Callable[[], Tensor]) -> Tensor:
    """Take a step with cuDNN's search for the fastest kernels, which pays for a fixed size only."""
    torch.backends.cudnn.benchmark = True
    try:
        return take_step()
    finally:
        torch.backends.cudnn.benchmark = False
