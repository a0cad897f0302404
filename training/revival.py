"""Revival of dead channels: channels that are positive nowhere in any patch.

Behind a ReLU, a channel that is never positive has no gradient and stays dead. Revival draws its
kernel anew and sets the weights that read the channel to zero: the network's output is unchanged,
and the channel can be learned again (Sokar et al., "The Dormant Neuron Phenomenon in Deep
Reinforcement Learning", ICML 2023, Sec. 4). Where a shortcut or a shared convolution reads the
channel, the output changes.

Muon's steps have the same size for small kernels as for large ones, and kernels grow tenfold in
long runs. A revived kernel therefore gets the RMS of the layer's others and a bias that centres its
output at zero; smaller ones died again more often (docs/lab/training.md, "Dead channels").
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
    """Revive the channels that are positive nowhere in any patch.

    Args:
        network: Its parameters are changed in place.
        show_patches: Passes patches through the network.
        random: The generator of the new kernels.

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
    """Draw a channel's kernel with an RMS of ``size``, and zero the weights that read it."""
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

    The first batch decides. Each convolution is centred during its forward pass, so that its input
    already includes the corrections of the convolutions before it.
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
