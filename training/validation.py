"""Scores of a network on held-out pictures, by the protocol of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from training.data.pictures import Picture
from training.degradations.bicubic import crop_to_multiple
from training.degradations.degradation import version_random
from training.metrics.kinds import METRICS
from training.metrics.metric import Measure
from training.networks.interface import RestorationNetwork
from training.recipe import Recipe
from training.tasks import Task

_CROP = (
    160  # at the size of the original, where restoring whole pictures costs as much as many steps
)
_SEED = 900

HeldOut = Sequence[tuple[Picture, Picture]]
"""Degraded pictures and their originals."""


def held_out(recipe: Recipe, pictures: Sequence[Picture], scale: int) -> HeldOut:
    """Degrade held-out pictures as the recipe says, with a fixed seed."""
    degradation = recipe.task.degradation
    pairs = []
    for index, picture in enumerate(pictures):
        original = crop_to_multiple(picture, scale)
        low = degradation.degrade(original, scale, version_random(_SEED, index, 0)).pixels
        if not degradation.reduces:
            top, left = (max(0, (side - _CROP) // 2) for side in picture.shape[:2])
            window = np.s_[top : top + _CROP, left : left + _CROP]
            low, original = low[window], original[window]
        pairs.append((low, original))
    return pairs


def restore(network: RestorationNetwork, picture: Picture, scale: int) -> Picture:
    """Restore one H × W × 3 uint8 picture with a network in evaluation mode."""
    device = next(network.parameters()).device
    tensor = torch.from_numpy(picture.copy()).to(device).permute(2, 0, 1)[None].float().div(255)
    with torch.inference_mode():
        restored = network(tensor, scale)[0].clamp(0, 1).mul(255).round()
    pixels: Picture = restored.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    return pixels


def measures(metrics: Sequence[str]) -> dict[str, Measure]:
    """Return the measures of metrics by name.

    Raises:
        UserError: If a file of weights that one of them needs is missing.
    """
    return {name: METRICS[name].build() for name in metrics}


_PSNR = measures(["psnr"])


def validate(
    network: RestorationNetwork,
    pairs: HeldOut,
    task: Task,
    scale: int,
    measured: Mapping[str, Measure] = _PSNR,
) -> dict[str, float]:
    """Return the mean scores of the restored pictures, as the task scores them; PSNR in dB.

    A metric that all pictures are too small for is left out.
    """
    pictures = [
        task.scoring.compared(restore(network, low, scale), high, scale) for low, high in pairs
    ]
    scores = {
        name: [value for one in pictures if (value := measure(one)) is not None]
        for name, measure in measured.items()
    }
    return {name: float(np.mean(values)) for name, values in scores.items() if values}
