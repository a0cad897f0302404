"""Dead channels, which no patch makes positive any more, and their revival.

Behind a ReLU, a channel that is never positive has no gradient and stays what it is. Its kernel is
drawn anew and the kernels that read it forget it: the network computes what it did, and the channel
can be learned again (Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
ICML 2023, Sec. 4). Where a shortcut or a shared convolution reads the channel, the network changes
a little.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from training.networks.interface import HiddenLayer, RestorationNetwork


def revive_dead_channels(
    network: RestorationNetwork, show_patches: Callable[[], object], random: np.random.Generator
) -> int:
    """Revive the channels that no patch makes positive.

    Args:
        network: Its parameters are changed in place.
        show_patches: Passes patches through the network.
        random: Where the new kernels come from.

    Returns:
        How many channels were dead.
    """
    layers = list(network.hidden_layers())
    found = _dead_channels(layers, show_patches)
    for layer, channels in zip(layers, found, strict=True):
        for channel in channels:
            _revive(layer, channel, random)
    return sum(map(len, found))


def _dead_channels(
    layers: list[HiddenLayer], show_patches: Callable[[], object]
) -> list[list[int]]:
    """Return the channels of each layer that are positive nowhere in any patch."""
    alive: dict[nn.Module, Tensor] = {}

    def watch(module: nn.Module, _: object, features: Tensor) -> None:
        positive = features.amax((0, 2, 3)) > 0
        alive[module] = alive[module] | positive if module in alive else positive

    hooks = [layer.observed.register_forward_hook(watch) for layer in layers]
    try:
        with torch.no_grad():
            show_patches()
    finally:
        for hook in hooks:
            hook.remove()
    return [(~alive[layer.observed]).nonzero().flatten().tolist() for layer in layers]


@torch.no_grad()
def _revive(layer: HiddenLayer, channel: int, random: np.random.Generator) -> None:
    """Draw a channel's kernel and bias as PyTorch first does, and let no reader read it."""
    kernel = layer.writer.weight[channel]
    bound = 1 / math.sqrt(kernel.numel())
    kernel.copy_(torch.from_numpy(random.uniform(-bound, bound, kernel.shape)))
    if layer.writer.bias is not None:
        layer.writer.bias[channel] = random.uniform(-bound, bound)
    for reader, first in layer.readers:
        group, column = divmod(first + channel, reader.weight.shape[1])
        rows = reader.out_channels // reader.groups
        reader.weight[group * rows : (group + 1) * rows, column] = 0
