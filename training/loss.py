"""The training loss: the distance of restored patches from their originals."""

from __future__ import annotations

import torch
from torch import Tensor

from training.recipe import Recipe

_FLOOR = 1e-6
"""Added under the root, to keep its gradient finite at zero error; (a quarter grey level)²."""


def distance(
    recipe: Recipe, restored: Tensor, original: Tensor, untouched: Tensor | None = None
) -> Tensor:
    """Return the mean distance of patches, as the recipe's ``loss`` and ``luma`` measure it.

    ``rmse`` is the root of each patch's mean squared error. Like ``l2`` it rewards PSNR, but small
    errors of smooth patches weigh more, as they do in the mean PSNR of pictures.

    Args:
        recipe: Names the distance and the weights of luma and of untouched pixels.
        restored: N × 3 × H × W, in [0, 1].
        original: N × 3 × H × W, in [0, 1].
        untouched: N × H × W, true where the degradation left the pixel as it was; None for nowhere.
    """
    error = restored - original
    distances = _pointwise(recipe, error).mean(1)
    if recipe.luma:
        distances = torch.lerp(distances, _pointwise(recipe, _luma(error)), recipe.luma)
    if untouched is not None:
        distances = torch.where(untouched, recipe.identity_weight * distances, distances)
    if recipe.loss == "rmse":
        return (distances.mean((1, 2)) + _FLOOR).sqrt().mean()
    return distances.mean()


def _pointwise(recipe: Recipe, error: Tensor) -> Tensor:
    return error.abs() if recipe.loss == "l1" else error.square()


def _luma(picture: Tensor) -> Tensor:
    """Return Y of N × 3 × H × W (ITU-R BT.601, full range).

    The weights are Python numbers: a tensor could not be copied to the GPU during graph capture.
    """
    red, green, blue = picture.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
