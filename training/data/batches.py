"""The patches of every step, drawn from (seed, step) alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from runtime.errors import UserError
from training.data.patches import PatchSource
from training.data.pictures import Picture, read_all
from training.data.versions import patch_source
from training.degradations import bicubic
from training.degradations.degradation import Degradation
from training.recipe import Recipe

_DRAWING_THREADS = 8  # more threads wait for one another
_Drawn = TypeVar("_Drawn")


def source_of(recipe: Recipe, paths: Sequence[Path]) -> tuple[PatchSource, int]:
    """Return the source of a recipe's batches: the pictures at ``paths`` and their degradation.

    A picture is left out at sizes that do not hold the largest patch at the largest scale.

    Returns:
        The source, and the number of pictures in it.

    Raises:
        UserError: If no picture holds the largest patch at any of the recipe's sizes.
    """
    side = max(stage.patch for stage in recipe.stages) * max(recipe.network.scales)
    pictures = read_all(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        versions = [
            list(pool.map(partial(_resized, size=size), pictures)) for size in recipe.data.sizes
        ]
    shown = [
        (index, version)
        for resized in versions
        for index, version in enumerate(resized)
        if min(version.shape[:2]) >= side
    ]
    if not shown:
        raise UserError(
            f"{paths[0].parent}: at sizes {list(recipe.data.sizes)} none of the {len(paths)} "
            f"pictures read from it holds {side}×{side} pixels, the recipe's largest patch at its "
            "largest scale; add larger pictures, name larger sizes, or let its stages take "
            "smaller patches"
        )
    originals = [version for _, version in shown]
    source = replace(
        patch_source(originals, recipe.task.degradation, recipe.network.scales, recipe.seed),
        augment=recipe.augment,
        by_area=recipe.data.by_area,
        any_phase=recipe.data.any_phase,
    )
    return source, len({index for index, _ in shown})


def _resized(picture: Picture, size: float) -> Picture:
    if size == 1:
        return picture
    height, width = (max(1, round(size * side)) for side in picture.shape[:2])
    return bicubic.resize(picture, height, width)


@dataclass(frozen=True)
class Batch:
    """Patches of one scale.

    Attributes:
        scale: Upscaling factor.
        degradation: How the originals are degraded.
        windows: The windows drawn by ``PatchSource.windows``, N × side × side × 3, uint8: of the
            originals and of their degraded forms, or of the originals alone, with a margin around
            the patches.
        weight: Weight of the batch in the loss of the step.
    """

    scale: int
    degradation: Degradation
    windows: tuple[Tensor, ...]
    weight: float = 1.0

    @property
    def low(self) -> Tensor:
        """The network's input: N × patch × patch × 3, uint8."""
        if (of_windows := self.degradation.of_windows) is not None:
            return of_windows.degrade(self.windows[0], self.scale)
        return self.windows[1]

    @property
    def high(self) -> Tensor:
        """The target of the restoration: N × patch·scale × patch·scale × 3, uint8."""
        original = self.windows[0]
        if (of_windows := self.degradation.of_windows) is not None:
            margin = of_windows.margin(self.scale)
            return original[:, margin:-margin, margin:-margin] if margin else original
        return original

    def on(self, device: torch.device) -> Batch:
        """Return the batch on a device; copies from pinned memory are asynchronous."""
        windows = tuple(one.to(device, non_blocking=True) for one in self.windows)
        return replace(self, windows=windows)

    def pinned(self) -> Batch:
        """Return the batch in page-locked memory, from which a GPU copies asynchronously."""
        return replace(self, windows=tuple(one.pin_memory() for one in self.windows))


def draw_batches(recipe: Recipe, source: PatchSource, step: int) -> list[Batch]:
    """Draw the patches of ``step``, of one scale or of all; equal steps draw equal patches."""
    random = np.random.default_rng((recipe.seed, step))
    stage, scales = recipe.stage_at(step), recipe.network.scales
    weights = recipe.method.shares(scales)

    def draw(scale: int, size: int, weight: float = 1.0) -> Batch:
        windows = source.windows(random, scale, stage.patch, size)
        return Batch(scale, recipe.task.degradation, tuple(map(torch.from_numpy, windows)), weight)

    if not recipe.method.all_scales:
        return [draw(int(random.choice(scales, p=weights)), stage.batch)]
    return [
        draw(scale, round(stage.batch * weight), weight)
        for scale, weight in zip(scales, weights, strict=True)
        if weight
    ]


def coming_batches(
    recipe: Recipe, source: PatchSource, steps: range, device: torch.device
) -> Iterator[list[Batch]]:
    """Yield the batches of some steps; for a GPU, other threads draw the batches ahead."""
    if device.type == "cpu":
        return (draw_batches(recipe, source, step) for step in steps)

    def draw(step: int) -> list[Batch]:
        return [batch.pinned() for batch in draw_batches(recipe, source, step)]

    return drawn_ahead(draw, steps, _DRAWING_THREADS)


def drawn_ahead(draw: Callable[[int], _Drawn], steps: range, threads: int) -> Iterator[_Drawn]:
    """Yield ``draw(step)`` for every step, drawn ahead of their use on other threads."""
    depth = 2 * threads
    with ThreadPoolExecutor(threads) as pool:
        pending = deque(pool.submit(draw, step) for step in steps[:depth])
        try:
            for step in steps[depth:]:
                yield pending.popleft().result()
                pending.append(pool.submit(draw, step))
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
