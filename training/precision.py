"""Which arithmetic trains faster on this machine: bf16 or float32.

The choice is measured, because CPUs with the same bf16 instructions differ: some train slower with
bf16, others up to 1.9 times faster (docs/lab/training.md).
"""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import nn

from training.recipe import Recipe

_ROUNDS = 5


def with_precision(recipe: Recipe, device: str = "cpu") -> Recipe:
    """Return the recipe with ``precision: auto`` replaced by the faster one on ``device``."""
    if recipe.execution.precision != "auto":
        return recipe
    return recipe.with_execution(precision=faster_precision(device))


def faster_precision(device: str = "cpu") -> Literal["bf16", "float32"]:
    """Return the precision in which a convolution trains faster; takes 0.1 s on a CPU.

    CUDA devices are not measured: ``bf16`` if they support it.
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

    # The minimum of several interleaved rounds: other processes slow single rounds.
    rounds = [(seconds(True), seconds(False)) for _ in range(1 + _ROUNDS)][1:]
    bf16, float32 = (min(times) for times in zip(*rounds, strict=True))
    return "bf16" if bf16 < float32 else "float32"
