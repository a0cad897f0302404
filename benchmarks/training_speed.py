"""Steps per second of training in different ways, interleaved on this machine.

The ways show the cost of drawing batches, the gain of bf16, channels_last, one pass of the body for
all scales and kernels mixed together (each alone, and all against a plain float32 loop with torch's
optimizers), the cost of Muon, and whether grouped convolutions train faster as masked dense ones.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from runtime.pictures.files import picture_paths
from training.data.batches import Batch, coming_batches, draw_batches, source_of
from training.data.patches import PatchSource
from training.networks.interface import RestorationNetwork
from training.optimization import Optimizer, OptimizerOptions, matrices_of, muon_kernels
from training.precision import with_precision
from training.recipe import Recipe
from training.run import Run
from training.stepping import step_taker


@dataclass(frozen=True)
class TrainingSpeed:
    """Speed of one way to train.

    Attributes:
        name: Name of the way.
        steps_per_second: Median over the rounds.
        ratio: Speed relative to the first way in the same round, median over the rounds.
    """

    name: str
    steps_per_second: float
    ratio: float


@dataclass(frozen=True)
class Way:
    """A way to take the steps of a recipe.

    Attributes:
        name: Name in tables.
        recipe: The recipe, with the keys that the way changes.
        batches_kept: Take batches from memory, not from drawing threads.
        channels_last: Store kernels with their channels last, not contiguous.
        joint_pass: Restore all scales of a step, and mix all kernels, together
            (``restore_scales``), not one by one (``forward``).
        graphs: Replay CUDA graphs on a CUDA device.
        torch_muon: Step kernels with torch's Muon instead of ``training.optimization``'s.
    """

    name: str
    recipe: Recipe
    batches_kept: bool = False
    channels_last: bool = True
    joint_pass: bool = True
    graphs: bool = True
    torch_muon: bool = False

    def begin(self, device: str) -> Run:
        """Begin a run that steps in this way."""
        run = Run.fresh(self.recipe, device)
        if not self.channels_last:
            # torch's stubs lack this overload of a module's method.
            run.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if not self.joint_pass:
            run.restore = partial(RestorationNetwork.restore_scales, run.network)
        if self.torch_muon:
            run.optimizer = TorchMuon(run.network, self.recipe.optimizer)
        return run


def ways_of(recipe: Recipe, device: str) -> list[Way]:
    """Return the ways to compare for a recipe of known precision, the recipe's own first."""
    other = "float32" if recipe.execution.precision == "bf16" else "bf16"
    muon = recipe.optimizer.kind == "muon"
    ways = [
        Way("the recipe", recipe),
        Way("batches kept in memory", recipe, batches_kept=True),
        Way(
            "plain float32 loop",
            recipe.with_execution(precision="float32", masked_dense=False),
            channels_last=False,
            joint_pass=False,
            graphs=False,
            torch_muon=muon,
        ),
        Way(f"in {other}", recipe.with_execution(precision=other)),
        Way("without channels_last", recipe, channels_last=False),
    ]
    if device != "cpu":
        ways.append(Way("without CUDA graphs", recipe, graphs=False))
    if recipe.method.all_scales:
        ways.append(Way("one scale after another", recipe, joint_pass=False))
    if recipe.network.mixes_kernels:
        ways.append(Way("kernels mixed one by one", recipe, joint_pass=False))
    if muon:
        adam = recipe.optimizer.model_copy(update={"kind": "adam"})
        ways.append(Way("Adam alone", recipe.model_copy(update={"optimizer": adam})))
    if recipe.network.groups > 1:
        masked = recipe.execution.masked_dense
        name = "grouped convolutions" if masked else "masked dense convolutions"
        ways.append(Way(name, recipe.with_execution(masked_dense=not masked)))
    return ways


def training_speed(
    recipe: Recipe,
    data: Path,
    rounds: int = 5,
    steps: int = 8,
    pictures: int = 40,
    device: str = "cpu",
) -> list[TrainingSpeed]:
    """Measure the ways to take a step of ``recipe``; the recipe's own way comes first.

    Args:
        recipe: The recipe.
        data: Folder with the recipe's training pictures.
        rounds: Rounds in which every way runs once.
        steps: Optimizer steps of one run.
        pictures: Number of training pictures to draw patches from.
        device: ``cpu`` or ``cuda``.
    """
    recipe = with_precision(recipe, device)
    paths = picture_paths(data / recipe.data.train)[:pictures]
    source, _ = source_of(recipe, paths)
    drawn = (1 + rounds) * steps
    for step in range(drawn):  # distorted pictures are made at their first draw: not timed
        draw_batches(recipe, source, step)
    kept = [draw_batches(recipe, source, step) for step in range(steps)]
    ways = {
        way.name: _step_taker(way, source, kept, drawn, device) for way in ways_of(recipe, device)
    }
    for take_step in ways.values():
        _time(take_step, steps)
    timings: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, take_step in ways.items():
            timings[name].append(_time(take_step, steps))
    first = next(iter(timings.values()))
    return [
        TrainingSpeed(
            name,
            steps / statistics.median(seconds),
            statistics.median(a / b for a, b in zip(first, seconds, strict=True)),
        )
        for name, seconds in timings.items()
    ]


class TorchMuon(Optimizer):
    """Steps kernels, which must be contiguous, with torch's Muon: one matrix after the other."""

    def __init__(self, network: nn.Module, options: OptimizerOptions) -> None:
        super().__init__(network, options)
        kernels = dict(network.named_parameters())
        # The matrices are views: stepping them steps the kernels.
        self._matrices = [
            (kernels[name], [nn.Parameter(one) for one in matrices_of(kernels[name].data, parts)])
            for name, parts in muon_kernels(network)
        ]
        self._muon = torch.optim.Muon(
            [matrix for _, matrices in self._matrices for matrix in matrices],
            weight_decay=options.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )

    def _step_kernels(self, rate: float | Tensor, turn: int) -> None:
        for group in self._muon.param_groups:
            group["lr"] = rate
        for kernel, matrices in self._matrices:
            parts = len(matrices)
            gradients = [None] * parts if kernel.grad is None else matrices_of(kernel.grad, parts)
            for matrix, gradient in zip(matrices, gradients, strict=True):
                matrix.grad = gradient
        # torch leaves the step of this optimizer untyped.
        self._muon.step()  # type: ignore[no-untyped-call]


def _step_taker(
    way: Way, source: PatchSource, kept: Sequence[list[Batch]], drawn: int, device: str
) -> Callable[[int], object]:
    run = way.begin(device)
    take_step = step_taker(run, way.graphs)
    if way.batches_kept:
        return lambda step: take_step(kept[step])
    batches = coming_batches(run.recipe, source, range(drawn), run.device)
    return lambda step: take_step(next(batches))


def _time(take_step: Callable[[int], object], steps: int) -> float:
    start = time.perf_counter()
    for step in range(steps):
        take_step(step)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
