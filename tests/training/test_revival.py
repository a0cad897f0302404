from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from training.networks.carn import Carn, CarnConfig, GroupedConv2d
from training.networks.interface import HiddenLayer
from training.revival import revive_dead_channels

CONFIGS = {
    "carn": CarnConfig(channels=4, blocks=2, units=2, scales=(2, 4)),
    "carn-m": CarnConfig(
        channels=4, blocks=2, units=2, groups=2, efficient=True, recursive=True, scales=(3,)
    ),
}
CHANNEL = 2


def _network(name: str) -> Carn:
    """Return a network whose channels all live."""
    torch.manual_seed(0)
    network = Carn(CONFIGS[name])
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.uniform_(module.bias, 1, 2)
            nn.init.uniform_(module.weight, -0.05, 0.05)
    return network


def _layers(network: Carn) -> list[HiddenLayer]:
    return list(network.hidden_layers())


def _is_read_elsewhere(network: Carn, layer: HiddenLayer) -> bool:
    """Tell whether the layer's output enters a residual block, whose skip reads it once more."""
    return layer.observed is layer.writer and layer.writer is not network.body.writer()


def _restore(network: Carn) -> torch.Tensor:
    pictures = torch.rand(2, 3, 7, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scales = dict.fromkeys(network.config.scales, pictures)
        return torch.cat([one.flatten() for one in network.restore_scales(scales).values()])


def _revive(network: Carn) -> int:
    return revive_dead_channels(network, lambda: _restore(network), np.random.default_rng(0))


def _kill(layer: HiddenLayer, value: float = -100.0) -> None:
    assert layer.writer.bias is not None
    with torch.no_grad():
        layer.writer.bias[CHANNEL] = value


@pytest.mark.parametrize("name", CONFIGS)
def test_every_convolution_before_a_relu_of_the_body_is_a_layer(name: str) -> None:
    network = _network(name)
    writers = {layer.writer for layer in _layers(network)}
    assert writers == {one for one in network.body.modules() if isinstance(one, nn.Conv2d)}


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_reads_a_channel_but_its_readers_and_residual_blocks(name: str) -> None:
    for index, layer in enumerate(_layers(_network(name))):
        network = _network(name)
        layer = _layers(network)[index]
        _zero_what_reads(layer)
        before = _restore(network)
        _kill(layer, 30.0)
        assert torch.equal(_restore(network), before) != _is_read_elsewhere(network, layer), index


def _zero_what_reads(layer: HiddenLayer) -> None:
    """Zero the columns of the channel in dense kernels, an independent way to find them."""
    for reader, first in layer.readers:
        groups = reader.groups
        rows, columns = reader.out_channels // groups, reader.in_channels // groups
        with torch.no_grad():
            is_grouped = isinstance(reader, GroupedConv2d)
            dense = reader.dense_weight() if is_grouped else reader.weight.clone()
            dense[:, first + CHANNEL] = 0
            for group in range(groups):
                block = slice(group * rows, (group + 1) * rows)
                reader.weight[block] = dense[block, group * columns : (group + 1) * columns]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dead_channel_is_revived_and_the_network_computes_what_it_did(name: str) -> None:
    for index in range(len(_layers(_network(name)))):
        network = _network(name)
        layer = _layers(network)[index]
        _kill(layer)
        killed, before = copy.deepcopy(network.state_dict()), _restore(network)

        assert _revive(network) == 1, index

        if not _is_read_elsewhere(network, layer):
            assert torch.equal(_restore(network), before), index
        changed = {
            name
            for name, value in network.state_dict().items()
            if not torch.equal(value, killed[name])
        }
        names = {module: name for name, module in network.named_modules()}
        touched = {f"{names[reader]}.weight" for reader, _ in layer.readers}
        writer = names[layer.writer]
        assert changed == touched | {f"{writer}.weight", f"{writer}.bias"}, index


def test_a_revived_channel_learns_again() -> None:
    network = _network("carn")
    layer = _layers(network)[1]
    _kill(layer)
    assert _slope(network, layer) == 0
    _revive(network)
    reader, first = layer.readers[0]
    with torch.no_grad():  # The readers learn first; one step of theirs is enough.
        reader.weight[:, first + CHANNEL] += 0.1
    assert _slope(network, layer) > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_revived_channels_are_as_large_as_the_others_and_half_let_through(name: str) -> None:
    network = _network(name)
    layers = _layers(network)
    with torch.no_grad():
        for layer in layers:
            layer.writer.weight *= 10
            _kill(layer, -1e4)
    sizes = [_size(layer.writer.weight) for layer in layers]
    assert _revive(network) >= len(layers)

    made: dict[nn.Module, torch.Tensor] = {}

    def remember(writer: nn.Module, _: object, features: torch.Tensor) -> None:
        made.setdefault(writer, features[:, CHANNEL])  # The first run of a shared writer.

    for layer in layers:
        layer.writer.register_forward_hook(remember)
    _restore(network)
    for layer, size in zip(layers, sizes, strict=True):
        assert _size(layer.writer.weight[CHANNEL]) == pytest.approx(size, rel=0.7)
        assert made[layer.writer].mean().abs() < 1e-3 * made[layer.writer].std()


def _size(kernel: torch.Tensor) -> float:
    return float(kernel.detach().square().mean().sqrt())


def _slope(network: Carn, layer: HiddenLayer) -> float:
    network.zero_grad()
    torch.autograd.backward(network(torch.rand(1, 3, 8, 8), 2).square().mean())
    assert layer.writer.weight.grad is not None
    return float(layer.writer.weight.grad[CHANNEL].abs().sum())


def test_living_networks_are_left_alone() -> None:
    network = _network("carn-m")
    before = copy.deepcopy(network.state_dict())
    assert _revive(network) == 0
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
