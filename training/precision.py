"""Which arithmetic trains faster on this machine: bf16 or float32.

An Intel Xeon with AVX-512 bf16 loses a fifth to a third of its steps to it, an AMD EPYC with the
same instructions wins up to 1.9 times (docs/lab/training.md): their names do not tell which it
will be.
"""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import nn

from training.recipe import Recipe

_ROUNDS = 5


def with_precision(recipe: Recipe, device: str = "cpu") -> Recipe:
    """Return the recipe with ``precision: auto`` replaced by what is faster on ``device``."""
    if recipe.precision != "auto":
        return recipe
    return recipe.model_copy(update={"precision": faster_precision(device)})


def faster_precision(device: str = "cpu") -> Literal["bf16", "float32"]:
    """Measure a training step of a convolution in both; a tenth of a second on a CPU.

    CUDA devices with bf16 are taken at their word.
    """
    if device != "cpu":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    convolution = nn.Conv2d(64, 64, 3, padding=1)
    batch = torch.rand(8, 64, 24, 24).to(memory_format=torch.channels_last).requires_grad_()

    def seconds(bf16: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            sums = convolution(batch)
        torch.autograd.backward(sums.float().mean())
        return time.perf_counter() - start

    # The least of several interleaved rounds: what else runs here slows single ones.
    rounds = [(seconds(True), seconds(False)) for _ in range(1 + _ROUNDS)][1:]
    bf16, float32 = (min(times) for times in zip(*rounds, strict=True))
    return "bf16" if bf16 < float32 else "float32"
