"""A training run at some step: its networks and optimizer, and how they are kept on disk."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.atomic import replacing
from runtime.errors import UserError
from training.catalogue import find_model
from training.checkpoint import load_tensors, non_finite, save_tensors
from training.losses.loss import LossFunction
from training.methods.method import Opponent
from training.networks.interface import RestorationNetwork
from training.optimization import Optimizer
from training.precision import with_precision
from training.recipe import Recipe
from training.recipe_reading import parse_recipe
from training.run_folder import PREVIOUS

_MAY_CHANGE = {"name", "stages", "optimizer", "execution", "validation", "checkpoint_every"}
"""Keys of a recipe whose values may change when a run is resumed; ``method.revive_at`` may, too."""


class NonFinite(UserError):
    """A run met an infinity or a NaN.

    Args:
        step: The step, from 1.
        what: Subject and verb of the message, for example ``the loss is``.
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(
            f"step {step}: {what} not finite; the last good checkpoint is kept. Run the command "
            "again with smaller steps: --set optimizer.learning_rate=…, or optimizer.clip_norm=…"
        )


@dataclass
class Run:
    """A training run at some step: the network, its average and its optimizer.

    Attributes:
        recipe: What is trained and how, its precision decided.
        network: The network under training.
        restore: The network's ``restore_scales``, compiled if the recipe says so.
        average: Exponential moving average of the network's parameters, which is published.
        optimizer: Steps the network's parameters.
        losses: Weight and function of each of the recipe's losses.
        step: Steps done.
        seconds: Time spent in the steps.
        opponent: What learns against the network, if the recipe's method has it.
        start: Records of the weights the run began with, each once: hashes, recipes, training
            records.
    """

    recipe: Recipe
    network: RestorationNetwork
    restore: Callable[[Mapping[int, Tensor]], dict[int, Tensor]]
    average: dict[str, Tensor]
    optimizer: Optimizer
    losses: tuple[tuple[float, LossFunction], ...]
    opponent: Opponent | None = None
    step: int = 0
    seconds: float = 0.0
    start: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def begin(cls, recipe: Recipe, device: str = "cpu") -> Run:
        """Begin a run with the mean of the weights that the recipe names, or with random weights.

        Raises:
            UserError: If the weights are of another network than the recipe describes.
        """
        run = cls.fresh(with_precision(recipe, device), device)
        if not recipe.start:
            return run
        models = {name: find_model(name) for name in recipe.start}
        for name, model in models.items():
            if model.recipe.network != recipe.network:
                raise UserError(
                    f"{name}: is of another network than recipe '{recipe.name}' describes; "
                    "name weights of the same network as its start"
                )
        states = {name: model.network().state_dict() for name, model in models.items()}
        for key, parameter in run.network.state_dict().items():
            parameter.copy_(sum(states[name][key] for name in recipe.start) / len(recipe.start))
        with torch.no_grad():
            for name, parameter in run.network.named_parameters():
                run.average[name].copy_(parameter)
        run.start = [model.record for model in models.values()]
        return run

    @classmethod
    def fresh(cls, recipe: Recipe, device: str = "cpu") -> Run:
        """Initialize a network from the recipe's seed."""
        torch.manual_seed(recipe.seed)
        network = recipe.network.build().to(device).train()
        # torch's stubs lack this overload of a module's method.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.train_masked_dense(recipe.execution.masked_dense)
        restore = network.restore_scales
        if recipe.execution.compiled:
            restore = torch.compile(restore, dynamic=False)
        dtype = torch.bfloat16 if recipe.execution.precision == "bf16" else torch.float32
        optimizer = Optimizer(network, recipe.optimizer, dtype)
        average = {name: value.detach().clone() for name, value in network.named_parameters()}
        losses = tuple((one.weight, one.build(torch.device(device))) for one in recipe.losses)
        opponent = recipe.method.opponent(torch.device(device))
        return cls(recipe, network, restore, average, optimizer, losses, opponent)

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs; an existing file becomes ``PREVIOUS``.

        Raises:
            NonFinite: If a parameter, an average or a moment is not finite. Nothing is written.
        """
        tensors = {f"average.{name}": value for name, value in self.average.items()}
        for name, parameter in self.network.named_parameters():
            tensors[f"network.{name}"] = parameter
        tensors.update(self.optimizer.state())
        if self.opponent is not None:
            tensors.update(self.opponent.state())
        if damaged := non_finite(tensors):
            raise NonFinite(self.step, f"{damaged} is")
        if path.exists():
            with replacing(path.with_name(PREVIOUS)) as temporary:
                shutil.copyfile(path, temporary)
        metadata = {
            "step": str(self.step),
            "seconds": repr(self.seconds),
            "recipe": self.recipe.model_dump_json(),
            "start": json.dumps(self.start),
        }
        save_tensors(path, tensors, metadata)

    @classmethod
    def resume(cls, path: Path, recipe: Recipe, device: str = "cpu") -> Run:
        """Continue from a checkpoint of the same network.

        The recipe may differ in the keys of ``_MAY_CHANGE``, so that a run can be lengthened, but
        in no key that determined the steps so far. ``precision: auto`` keeps the precision that was
        measured when the run began.

        Raises:
            UserError: If the checkpoint is damaged or of another run than the recipe describes.
        """
        tensors, metadata = load_tensors(path)
        if name := non_finite(tensors):
            raise UserError(
                f"{path}: holds values that are not finite ({name}); put {PREVIOUS} in its place, "
                "or remove it to begin anew"
            )
        trained = parse_recipe(json.loads(metadata.get("recipe", "{}")), str(path))
        if recipe.execution.precision == "auto":
            recipe = recipe.with_execution(precision=trained.execution.precision)
        if changed := _changes(trained, recipe):
            raise UserError(
                f"{path}: was trained with another {', '.join(changed)} than recipe "
                f"'{recipe.name}' says; choose another --out or restore the recipe"
            )
        run = cls.fresh(recipe, device)
        with torch.no_grad():
            for name, parameter in run.network.named_parameters():
                parameter.copy_(tensors[f"network.{name}"])
                run.average[name].copy_(tensors[f"average.{name}"])
        run.optimizer.load(tensors)
        if run.opponent is not None:
            run.opponent.load(tensors)
        run.step, run.seconds = int(metadata["step"]), float(metadata["seconds"])
        run.start = json.loads(metadata.get("start", "[]"))
        return run

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    def averaged_network(self) -> RestorationNetwork:
        """Return a copy of the network with the averaged parameters, ready to evaluate."""
        network = self.recipe.network.build()
        network.load_state_dict(self.average)
        return network.eval().to(self.device)


def _changes(trained: Recipe, recipe: Recipe) -> list[str]:
    """Return the keys in which another recipe describes another run."""
    method = recipe.method.model_copy(update={"revive_at": trained.method.revive_at})
    recipe = recipe.model_copy(update={"method": method})
    keys = [key for key in Recipe.model_fields if key not in _MAY_CHANGE]
    changed = [key for key in keys if getattr(trained, key) != getattr(recipe, key)]
    if trained.optimizer.kind != recipe.optimizer.kind:
        changed.append("optimizer.kind")
    return changed


def schedule(recipe: Recipe, step: int) -> float:
    """Return the fraction of the learning rate, 0 to 1, for ``step`` (from 0)."""
    options = recipe.optimizer
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "halving":
        return float(0.5 ** sum(step >= one for one in options.halvings))
    if options.schedule == "trapezoid":
        fall = min(1.0, (recipe.steps - step) / options.decay)
    else:
        progress = (step - options.warmup) / max(1, recipe.steps - options.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
    floor = options.final_fraction
    return floor + (1 - floor) * fall


def require_device(device: str) -> None:
    """Check that torch can train on a device, ``cpu`` or ``cuda``.

    Raises:
        UserError: If the device is unknown or not available.
    """
    if device not in {"cpu", "cuda"}:
        raise UserError(
            f"--device {device}: expected cpu or cuda (CUDA_VISIBLE_DEVICES chooses among several)"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch sees no CUDA device here; use --device cpu")
