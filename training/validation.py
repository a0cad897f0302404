"""PSNR of a network on held-out pictures, by the protocol of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training import bicubic
from training.metrics import psnr_y
from training.networks.carn import Carn
from training.pictures import Picture


def restore(network: Carn, picture: Picture, scale: int) -> Picture:
    """Restore one H × W × 3 uint8 picture with a network in evaluation mode."""
    device = next(network.parameters()).device
    tensor = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float().div(255)
    with torch.inference_mode():
        restored = network(tensor, scale)[0].clamp(0, 1).mul(255).round()
    pixels: Picture = restored.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    return pixels


def validate(network: Carn, pictures: Sequence[Picture], scale: int) -> float:
    """Return the mean PSNR-Y in dB over high-resolution ``pictures``."""
    scores = []
    for picture in pictures:
        reference = bicubic.crop_to_multiple(picture, scale)
        restored = restore(network, bicubic.reduce(reference, scale), scale)
        scores.append(psnr_y(restored, reference, border=scale))
    return float(np.mean(scores))
