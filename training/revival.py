"""Dead channels, which no patch makes positive any more, and their revival.

Behind a ReLU, a channel that is never positive has no gradient and stays what it is. Its kernel is
drawn anew and the kernels that read it forget it: the network computes what it did, and the channel
can be learned again (Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
ICML 2023, Sec. 4). Where a shortcut or a shared convolution reads the channel, the network changes.

Steps of Muon's are as large for small kernels as for large ones, and kernels grow tenfold in long
runs. Hence a kernel is drawn as large as the layer's others, and its bias centres what it makes: of
kernels drawn as small as at first more died again (docs/lab/training.md, "Dead channels").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        size = layer.writer.weight.detach().square().mean().sqrt().item()
        for channel in channels:
            _revive(layer, channel, size, random)
    writers = (layer.writer for layer in layers)
    _centre(dict(zip(writers, found, strict=True)), show_patches)
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
def _revive(layer: HiddenLayer, channel: int, size: float, random: np.random.Generator) -> None:
    """Draw a channel's kernel of a root mean square of ``size``, and let no reader read it."""
    kernel = layer.writer.weight[channel]
    kernel.copy_(torch.from_numpy(size * random.standard_normal(kernel.shape)))
    if layer.writer.bias is not None:
        layer.writer.bias[channel] = 0
    for reader, first in layer.readers:
        group, column = divmod(first + channel, reader.weight.shape[1])
        rows = reader.out_channels // reader.groups
        reader.weight[group * rows : (group + 1) * rows, column] = 0


@torch.no_grad()
def _centre(revived: Mapping[nn.Conv2d, list[int]], show_patches: Callable[[], object]) -> None:
    """Choose the biases of revived channels so that their convolutions return zero on average.

    As the first patches pass, from the first convolution to the last: each sees what those before
    it then make.
    """
    pending = {writer for writer, channels in revived.items() if channels}

    def centre(writer: nn.Conv2d, _: object, features: Tensor) -> None:
        if writer in pending and writer.bias is not None:
            pending.remove(writer)
            channels = revived[writer]
            means = features[:, channels].mean((0, 2, 3), dtype=torch.float32)
            writer.bias[channels] -= means
            features[:, channels] -= means.to(features.dtype).reshape(-1, 1, 1)

    hooks = [writer.register_forward_hook(centre) for writer in pending]
    try:
        if hooks:
            show_patches()
    finally:
        for hook in hooks:
            hook.remove()
