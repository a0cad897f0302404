"""The training loop: steps on random patches, an average of the weights, exact resume.

Everything random in step ``n`` is drawn from ``(seed, n)``, so that a run that was killed and
resumed from its checkpoint ends with the same weights as an uninterrupted run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from runtime.errors import UserError
from runtime.hidden_tensorflow import without_tensorflow
from runtime.pictures.files import picture_paths
from training.checkpoint import save_tensors
from training.data.batches import coming_batches, source_of
from training.data.pictures import Picture, read_all
from training.interruption import interruptions_held_back
from training.methods.method import Collapse
from training.metrics.metric import Measure
from training.recipe import Recipe
from training.run import NonFinite, Run
from training.run_folder import CHECKPOINT, WEIGHTS
from training.stepping import revive, step_taker
from training.validation import HeldOut, held_out, measures, validate

with without_tensorflow():  # TensorBoard then uses its own file writer
    from torch.utils.tensorboard.writer import SummaryWriter


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
    if run.step > recipe.steps:
        raise UserError(
            f"{folder}: holds a run of {run.step} steps, more than the recipe's {recipe.steps}; "
            "choose another --out or restore the recipe"
        )
    if run.step == recipe.steps and (folder / WEIGHTS).exists():
        tqdm.write(f"already finished: {run.step} steps; for another run choose another --out")
        return folder / WEIGHTS
    measured = measures(recipe.validation.metrics)  # what is missing is said before the first step
    paths = picture_paths(data / recipe.data.train)
    source, pictures = source_of(recipe, paths)
    valid, too_small = _held_out_pictures(recipe, data / recipe.data.valid)
    validation = {scale: held_out(recipe, valid, scale) for scale in recipe.network.scales}
    # Entries that a killed run logged after its last checkpoint are replaced.
    log = SummaryWriter(str(folder), purge_step=run.step + 1 if resumes else 0)
    bar = tqdm(
        total=recipe.steps, initial=run.step, disable=None if progress else True, unit="step"
    )
    resumed = f", resumed after step {run.step}" if resumes else ""
    bar.write(f"training in {run.recipe.execution.precision}{resumed}")
    if pictures < len(paths):
        bar.write(f"pictures too small for the largest patch, left out: {len(paths) - pictures}")
    if too_small:
        bar.write(f"held-out pictures too small to be scored, left out: {', '.join(too_small)}")
    steps = range(run.step, recipe.steps)
    batches, take_step = coming_batches(run.recipe, source, steps, run.device), step_taker(run)
    losses: list[Tensor] = []
    is_sound = True
    try:
        while True:
            # Before the next step, so that a run that was stopped before validation catches up.
            if run.step and (run.step % recipe.validation.every == 0 or run.step == recipe.steps):
                _log_validation(run, validation, measured, log, bar)
            if run.step == recipe.steps:
                break
            start = time.perf_counter()
            with interruptions_held_back():
                is_sound = False
                if run.step in recipe.method.revive_at:
                    bar.write(f"step {run.step}: {revive(run, source)} dead channels revived")
                losses.append(take_step(next(batches)))
                if run.device.type == "cpu":
                    _check_finite(losses[-1:], run.step)
                elif run.step % 100 == 0:  # rarely, for reading a loss waits for the device
                    _check_finite(losses, run.step)
                is_sound = True
            if run.step % 100 == 0:
                loss = torch.stack(losses).mean().item()
                losses.clear()
                log.add_scalar("loss", loss, run.step)
                bar.set_postfix(loss=f"{loss:.4f}")
                if run.opponent is not None:
                    log.add_scalar("opponent", run.opponent.check(run.step), run.step)
            run.seconds += time.perf_counter() - start
            bar.update()
            if run.step % recipe.checkpoint_every == 0:
                run.save(checkpoint)
    except (NonFinite, Collapse):
        is_sound = False
        raise
    finally:
        try:
            if is_sound:  # a step that failed has updated some of the parameters only
                run.save(checkpoint)
        finally:
            log.close()
            bar.close()
    save_weights(run, folder / WEIGHTS, pictures)
    return folder / WEIGHTS


def _held_out_pictures(recipe: Recipe, folder: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures larger than the border that scores omit, and the names of the others.

    Raises:
        UserError: If no picture is large enough.
    """
    paths = picture_paths(folder)
    pictures = read_all(paths)
    least = max(
        -(-(2 * recipe.task.scoring.border(scale) + 1) // scale) * scale
        for scale in recipe.network.scales
    )
    fitting = [one for one in pictures if min(one.shape[:2]) >= least]
    if not fitting:
        raise UserError(
            f"{folder}: all pictures are too small to be scored; expected {least}×{least} or more"
        )
    small = [
        path.name for path, one in zip(paths, pictures, strict=True) if min(one.shape[:2]) < least
    ]
    return fitting, small


def _check_finite(losses: Sequence[Tensor], step: int) -> None:
    """Check that all losses are finite.

    Args:
        losses: The losses of the last steps.
        step: Number of the last step, from 1.

    Raises:
        NonFinite: If a loss is not; names the first such step.
    """
    finite = torch.stack(list(losses)).isfinite()
    if not finite.all():
        raise NonFinite(step - len(finite) + 1 + int((~finite).nonzero()[0]), "the loss is")


def save_weights(run: Run, path: Path, pictures: int) -> None:
    """Write the averaged weights with the recipe and the training record.

    Args:
        run: The finished run.
        path: The ``.safetensors`` to write.
        pictures: Number of training pictures.
    """
    record: dict[str, Any] = {
        "steps": run.step,
        "hours": round(run.seconds / 3600, 2),
        "pictures": pictures,
        "machine": _machine(run.device),
        "torch": torch.__version__,
        **({"start": run.start} if run.start else {}),
    }
    metadata = {"recipe": run.recipe.model_dump_json(), "training": json.dumps(record)}
    save_tensors(path, run.average, metadata)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}, threads: {threads}"


def _log_validation(
    run: Run,
    validation: Mapping[int, HeldOut],
    measured: Mapping[str, Measure],
    log: SummaryWriter,
    bar: Any,
) -> None:
    network = run.averaged_network()
    for scale, pairs in validation.items():
        scores = validate(network, pairs, run.recipe.task, scale, measured)
        for metric, score in scores.items():
            log.add_scalar(f"{metric}/x{scale}", score, run.step)
        found = [
            f"{scores[one]:.3f} dB" if one == "psnr" else f"{one} {scores[one]:.4f}"
            for one in scores
        ]
        bar.write(f"step {run.step}: x{scale} {', '.join(found)}")
    log.add_scalar("seconds", run.seconds, run.step)
