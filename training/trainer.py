"""The training loop: steps on random patches, an average of the weights, exact resume.

Everything random in step ``n`` is drawn from ``(seed, n)``, so that a run that was killed and
resumed from its checkpoint ends with the weights of one that never stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from runtime.errors import UserError
from training.catalogue import find_model
from training.checkpoint import load_tensors, save_tensors
from training.hidden_tensorflow import without_tensorflow
from training.interruption import ctrl_c_held_back
from training.networks.families import build_network
from training.networks.interface import RestorationNetwork
from training.optimization import Optimizer
from training.pictures import PatchSource, Picture, picture_paths, read_all
from training.precision import with_precision
from training.recipe import Recipe, parse_recipe
from training.revival import revive_dead_channels
from training.shdd import patch_source
from training.validation import HeldOut, held_out, validate

with without_tensorflow():  # TensorBoard takes its own writer of files then
    from torch.utils.tensorboard.writer import SummaryWriter

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
_PROBED_STEPS = 16
"""Channels are dead that the patches of so many steps leave dead."""
_LOSSES: Mapping[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss}


@dataclass
class Run:
    """A training run at some step: the network, its average and its optimizer.

    Attributes:
        recipe: What is trained and how, its precision decided.
        network: The network under training.
        average: Exponential moving average of the network's parameters; what is published.
        optimizer: Steps the network's parameters.
        step: Steps done.
        seconds: Time spent in those steps.
        start: The weights it began with, their recipe and training record, where it did not begin
            anew.
    """

    recipe: Recipe
    network: RestorationNetwork
    average: dict[str, Tensor]
    optimizer: Optimizer
    step: int = 0
    seconds: float = 0.0
    start: dict[str, Any] | None = None

    @classmethod
    def begin(cls, recipe: Recipe, device: str = "cpu") -> Run:
        """Begin a run: with the weights that the recipe starts from, or else with random ones.

        Raises:
            UserError: If the weights are of another network than the recipe describes.
        """
        run = cls.fresh(with_precision(recipe, device), device)
        if recipe.start is None:
            return run
        model = find_model(recipe.start)
        if model.recipe.network != recipe.network:
            raise UserError(
                f"{recipe.start}: is of another network than recipe '{recipe.name}' describes; "
                "name weights of the same one as its start"
            )
        run.network.load_state_dict(model.network().state_dict())
        with torch.no_grad():
            for name, parameter in run.network.named_parameters():
                run.average[name].copy_(parameter)
        recipe_of_start = model.recipe.model_dump(mode="json")
        run.start = {"sha256": model.sha256, "recipe": recipe_of_start, **model.training}
        return run

    @classmethod
    def fresh(cls, recipe: Recipe, device: str = "cpu") -> Run:
        """Initialize a network from the recipe's seed."""
        torch.manual_seed(recipe.seed)
        network = build_network(recipe.network).to(device).train()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.train_masked_dense(recipe.masked_dense)
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        optimizer = Optimizer(network, recipe.optimizer, dtype)
        average = {name: value.detach().clone() for name, value in network.named_parameters()}
        return cls(recipe, network, average, optimizer)

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        tensors = {f"average.{name}": value for name, value in self.average.items()}
        for name, parameter in self.network.named_parameters():
            tensors[f"network.{name}"] = parameter
        tensors.update(self.optimizer.state())
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

        The recipe may have changed in anything but the network, so that a run can be lengthened.
        ``precision: auto`` stays what it was found to be when the run began.

        Raises:
            UserError: If the checkpoint is damaged or belongs to another network.
        """
        tensors, metadata = load_tensors(path)
        trained = parse_recipe(json.loads(metadata.get("recipe", "{}")), str(path))
        if recipe.precision == "auto":
            recipe = recipe.model_copy(update={"precision": trained.precision})
        run = cls.fresh(recipe, device)
        if (trained.network, trained.optimizer.kind) != (recipe.network, recipe.optimizer.kind):
            raise UserError(
                f"{path}: was trained with another network or optimizer than recipe "
                f"'{recipe.name}' describes; choose another --out or restore the recipe"
            )
        with torch.no_grad():
            for name, parameter in run.network.named_parameters():
                parameter.copy_(tensors[f"network.{name}"])
                run.average[name].copy_(tensors[f"average.{name}"])
        run.optimizer.load(tensors)
        run.step, run.seconds = int(metadata["step"]), float(metadata["seconds"])
        run.start = json.loads(metadata.get("start", "null"))
        return run

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def averaged_network(self) -> RestorationNetwork:
        """Return a copy of the network with the averaged parameters, ready to evaluate."""
        network = build_network(self.recipe.network)
        network.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return network.eval()


def schedule(recipe: Recipe, step: int) -> float:
    """Return the fraction of the learning rate that ``step`` (from 0) is taken at."""
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


def source_of(recipe: Recipe, paths: Sequence[Path]) -> PatchSource:
    """Return where a recipe's batches come from: the pictures at ``paths`` and their damaged forms.

    Raises:
        UserError: If a picture does not hold the recipe's largest patch at its largest scale.
    """
    pictures = read_all(paths)
    patch, scale = max(stage.patch for stage in recipe.stages), max(recipe.network.scales)
    side, smallest = min(
        (min(picture.shape[:2]), path) for picture, path in zip(pictures, paths, strict=True)
    )
    if side < patch * scale:
        raise UserError(
            f"{smallest}: its smaller side of {side} pixels holds no patch of {patch}×{patch} at "
            f"×{scale}; leave it out, or let no stage take patches above {side // scale}"
        )
    if recipe.shdd_level is not None:
        return patch_source(pictures, recipe.shdd_level, recipe.seed)
    return PatchSource.from_pictures(pictures, recipe.network.scales)


@dataclass(frozen=True)
class Batch:
    """Patches of one scale.

    Attributes:
        scale: Upscaling factor.
        low: N × patch × patch × 3, uint8.
        high: N × patch·scale × patch·scale × 3, uint8.
        weight: Of its loss in that of the step.
    """

    scale: int
    low: Picture
    high: Picture
    weight: float = 1.0


def draw_batches(recipe: Recipe, source: PatchSource, step: int) -> list[Batch]:
    """Draw the patches of ``step``, of one scale or of all; the same step always draws the same."""
    random = np.random.default_rng((recipe.seed, step))
    stage, scales = recipe.stage_at(step), recipe.network.scales
    weights = [recipe.weight_of(scale) for scale in scales]
    if not recipe.all_scales:
        scale = int(random.choice(scales, p=weights))
        return [Batch(scale, *source.batch(random, scale, stage.patch, stage.batch))]
    return [
        Batch(scale, *source.batch(random, scale, stage.patch, round(stage.batch * weight)), weight)
        for scale, weight in zip(scales, weights, strict=True)
        if weight
    ]


def train_step(run: Run, batches: Sequence[Batch]) -> Tensor:
    """Take one optimizer step on patches of one or several scales and return the loss."""
    recipe, options = run.recipe, run.recipe.optimizer
    parameters: list[Tensor] = list(run.network.parameters())
    run.optimizer.zero_grad()
    loss = _loss(run, batches)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(parameters, options.clip_norm)
    run.optimizer.step(schedule(recipe, run.step))
    run.step += 1
    decay = min(options.ema, run.step / (run.step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(run.average.values()), parameters, 1 - decay)
    return loss.detach()


def revive(run: Run, source: PatchSource) -> int:
    """Revive the channels that the next steps' patches leave dead and return how many there were.

    What is drawn depends on the recipe's seed and the step alone.
    """

    def show_patches() -> None:
        for step in range(run.step, run.step + _PROBED_STEPS):
            _restored(run, _low(run, draw_batches(run.recipe, source, step)))

    random = np.random.default_rng((run.recipe.seed, run.step, 1))
    return revive_dead_channels(run.network, show_patches, random)


def _loss(run: Run, batches: Sequence[Batch]) -> Tensor:
    recipe = run.recipe
    pictures = _low(run, batches)
    restored = _restored(run, pictures)
    losses = []
    for batch in batches:
        original = _to_tensor(batch.high, run.device)
        loss = _LOSSES[recipe.loss](restored[batch.scale].float(), original, reduction="none")
        if recipe.identity_weight != 1:
            untouched = (pictures[batch.scale] == original).all(1, keepdim=True)
            loss = torch.where(untouched, recipe.identity_weight * loss, loss)
        losses.append(batch.weight * loss.mean())
    return torch.stack(losses).sum()


def _low(run: Run, batches: Sequence[Batch]) -> dict[int, Tensor]:
    return {batch.scale: _to_tensor(batch.low, run.device) for batch in batches}


def _restored(run: Run, pictures: Mapping[int, Tensor]) -> dict[int, Tensor]:
    bf16 = run.recipe.precision == "bf16"
    with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
        return run.network.restore_scales(pictures)


def train(
    recipe: Recipe,
    data: Path,
    folder: Path,
    progress: bool = True,
    device: str = "cpu",
) -> Path:
    """Train until the recipe's last step, resuming from ``folder`` if it holds a checkpoint.

    Args:
        recipe: What to train.
        data: The folder with the recipe's train and valid folders.
        folder: Where checkpoint, weights and TensorBoard logs go.
        progress: Show a progress bar with the remaining time.
        device: ``cpu`` or ``cuda``.

    Returns:
        The file with the averaged weights.
    """
    checkpoint = folder / CHECKPOINT
    resumes = checkpoint.exists()
    run = Run.resume(checkpoint, recipe, device) if resumes else Run.begin(recipe, device)
    paths = picture_paths(data / recipe.train_folder)
    source = source_of(recipe, paths)
    valid = read_all(picture_paths(data / recipe.valid_folder))
    validation = {scale: held_out(recipe, valid, scale) for scale in recipe.network.scales}
    log = SummaryWriter(str(folder), purge_step=run.step)
    bar = tqdm(
        total=recipe.steps, initial=run.step, disable=None if progress else True, unit="step"
    )
    bar.write(f"training in {run.recipe.precision}")
    losses: list[Tensor] = []
    try:
        while run.step < recipe.steps:
            start = time.perf_counter()
            with ctrl_c_held_back():
                if run.step in recipe.revive_at:
                    bar.write(f"step {run.step}: {revive(run, source)} dead channels revived")
                losses.append(train_step(run, draw_batches(recipe, source, run.step)))
            run.seconds += time.perf_counter() - start
            bar.update()
            if run.step % 100 == 0:
                loss = torch.stack(losses).mean().item()
                losses.clear()
                log.add_scalar("loss", loss, run.step)
                bar.set_postfix(loss=f"{loss:.4f}")
            if run.step % recipe.validate_every == 0 or run.step == recipe.steps:
                _log_validation(run, validation, log, bar)
            if run.step % recipe.checkpoint_every == 0:
                run.save(checkpoint)
    finally:
        run.save(checkpoint)
        log.close()
        bar.close()
    save_weights(run, folder / WEIGHTS, len(paths))
    return folder / WEIGHTS


def save_weights(run: Run, path: Path, pictures: int) -> None:
    """Write the averaged weights with the recipe and the training record.

    Args:
        run: The finished run.
        path: The ``.safetensors`` to write.
        pictures: How many pictures it was trained on.
    """
    record: dict[str, Any] = {
        "steps": run.step,
        "hours": round(run.seconds / 3600, 2),
        "pictures": pictures,
        "machine": _machine(run.device),
        "torch": torch.__version__,
        **({} if run.start is None else {"start": run.start}),
    }
    metadata = {"recipe": run.recipe.model_dump_json(), "training": json.dumps(record)}
    save_tensors(path, run.average, metadata)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}, threads: {threads}"


def _log_validation(
    run: Run, validation: Mapping[int, HeldOut], log: SummaryWriter, bar: Any
) -> None:
    network = run.averaged_network()
    for scale, pairs in validation.items():
        score = validate(network, pairs, scale)
        log.add_scalar(f"psnr/x{scale}", score, run.step)
        log.add_scalar(f"psnr_by_seconds/x{scale}", score, int(run.seconds))
        bar.write(f"step {run.step}: x{scale} {score:.3f} dB")


def _to_tensor(patches: Picture, device: torch.device) -> Tensor:
    """Turn N × H × W × 3 uint8 into N × 3 × H × W float in [0, 1], channels last in memory."""
    return torch.from_numpy(patches).to(device).permute(0, 3, 1, 2).float().div(255)
