"""How far saturated colours drive activations beyond what photographs do.

An activation in 8 bits has one range for all its channels. Where saturated colours reach several
times as far as photographs, that range is as much coarser, or clips; a network that has learned
otherwise needs neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.interface import RestorationNetwork

_LEAST = 1e-6
"""The smallest reach that anything is compared with."""


@contextmanager
def watched(network: RestorationNetwork) -> Iterator[list[Tensor]]:
    """Collect the activations of a network, N × C × H × W, in the order in which they are made."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output)

    hooks = [module.register_forward_hook(keep) for module in network.activations()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def excess(coloured: Sequence[Tensor], photographed: Sequence[Tensor]) -> Tensor:
    """Return how far activations reach beyond those of photographs, as a share of these.

    Of each activation counts what its channels exceed on average, and half of what the farthest
    one does; the sum over all activations is 0 where saturated colours reach no farther.

    Args:
        coloured: Activations in saturated colours, as ``watched`` collects them.
        photographed: Activations of photographs, in the same order. They get no gradient.
    """
    total = coloured[0].new_zeros((), dtype=torch.float32)
    for one, usual in zip(coloured, photographed, strict=True):
        limit = usual.detach().float().abs().amax().clamp_min(_LEAST)
        beyond = F.relu(one.float().abs() / limit - 1).amax((2, 3))
        total = total + beyond.mean() + beyond.amax() / 2
    return total
