"""The facts that a configuration states are true of the network that it builds."""

from __future__ import annotations

import pytest
import torch

from training.networks.carn import CarnConfig, GroupedConv2d
from training.networks.families import CONFIGS
from training.networks.interface import NetworkConfig
from training.networks.mepsnet import MepsnetConfig

SMALL: list[NetworkConfig] = [
    CarnConfig(channels=8, blocks=1, units=2, scales=(2, 4)),
    CarnConfig(channels=8, blocks=1, units=2, groups=4, efficient=True, scales=(3,)),
    MepsnetConfig(extraction=(8,), channels=4, experts=2, srirs=1, blocks=1),
    MepsnetConfig(extraction=(8,), channels=4, experts=2, srirs=1, blocks=1, sharing=False),
]


def test_families_are_listed_by_the_name_that_their_configurations_bear() -> None:
    assert {name: config().family for name, config in CONFIGS.items()} == {
        name: name for name in CONFIGS
    }
    assert {type(config) for config in SMALL} == {CONFIGS["carn"], CONFIGS["mepsnet"]}


@pytest.mark.parametrize("config", SMALL, ids=str)
def test_a_configuration_describes_what_it_builds(config: NetworkConfig) -> None:
    network = config.build().eval()
    for scale in config.scales:
        restored = network.at_scale(scale)(torch.rand(1, 3, 6, 5))
        assert restored.shape == (1, 3, 6 * scale, 5 * scale)
    assert config.revivable == any(True for _ in network.hidden_layers())
    grouped = {one.groups for one in network.modules() if isinstance(one, GroupedConv2d)}
    assert config.groups == max(grouped, default=1)
    bank = getattr(network, "bank", None)
    assert config.mixes_kernels == (bank is not None)
