"""What a step descends: the distance of restored patches from their originals."""

from __future__ import annotations

import torch
from torch import Tensor

from training.recipe import Recipe

_FLOOR = 1e-6
"""Keeps the slope of the root finite at patches without an error: a quarter of a grey level."""


def distance(
    recipe: Recipe, restored: Tensor, original: Tensor, untouched: Tensor | None = None
) -> Tensor:
    """Return the mean distance of patches, as the recipe's ``loss`` and ``luma`` measure it.

    ``rmse`` is the root of each patch's mean square. Like ``l2`` it asks for what PSNR asks for,
    but as the mean PSNR of pictures does it minds small errors of quiet patches, too.

    Args:
        recipe: Which distance, and how much luma and untouched pixels count in it.
        restored: N × 3 × H × W, in [0, 1].
        original: Of the same shape.
        untouched: N × H × W, true where nothing befell the pixel; none if None.
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

    In numbers, not a tensor: nothing can be copied to a GPU while a step is recorded there.
    """
    red, green, blue = picture.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
