"""PSNR of a network on held-out pictures, by the protocol of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training.data.pictures import Picture
from training.degradations import bicubic, shdd
from training.metrics import psnr_at
from training.networks.interface import RestorationNetwork
from training.recipe import Recipe

_CROP = 160  # of distorted pictures: restoring them whole would cost as much as many steps
_SEED = 900

HeldOut = Sequence[tuple[Picture, Picture]]
"""Damaged pictures and their originals."""


def held_out(recipe: Recipe, pictures: Sequence[Picture], scale: int) -> HeldOut:
    """Damage held-out pictures as the recipe says: always in the same way."""
    level = recipe.shdd_level
    if level is None:
        originals = [bicubic.crop_to_multiple(picture, scale) for picture in pictures]
        return [(bicubic.reduce(original, scale), original) for original in originals]
    pairs = []
    for index, picture in enumerate(pictures):
        distorted = shdd.distort(picture, level, _SEED, index, 0).pixels
        top, left = (max(0, (side - _CROP) // 2) for side in picture.shape[:2])
        window = np.s_[top : top + _CROP, left : left + _CROP]
        pairs.append((distorted[window], picture[window]))
    return pairs


def restore(network: RestorationNetwork, picture: Picture, scale: int) -> Picture:
    """Restore one H × W × 3 uint8 picture with a network in evaluation mode."""
    device = next(network.parameters()).device
    tensor = torch.from_numpy(picture.copy()).to(device).permute(2, 0, 1)[None].float().div(255)
    with torch.inference_mode():
        restored = network(tensor, scale)[0].clamp(0, 1).mul(255).round()
    pixels: Picture = restored.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    return pixels


def validate(network: RestorationNetwork, pairs: HeldOut, scale: int) -> float:
    """Return the mean PSNR in dB (see ``psnr_at``) of the restored pictures."""
    return float(
        np.mean([psnr_at(scale, restore(network, low, scale), high) for low, high in pairs])
    )
