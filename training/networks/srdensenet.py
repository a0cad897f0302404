"""SRDenseNet, dense blocks whose outputs all reach the reconstruction.

Tong, Li, Liu and Gao, "Image Super-Resolution Using Dense Skip Connections", ICCV 2017, Sec. 3:
the variant with all skip connections. Inside a block a layer reads all earlier layers of the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.networks.blocks import (
    OneScaleConfig,
    OneScaleNetwork,
    conv,
    transposed,
    upsampling_factors,
)


@dataclass(frozen=True)
class SrdensenetConfig(OneScaleConfig):
    """The shape of an SRDenseNet.

    Attributes:
        family: Name of the family.
        growth: Channels that each layer adds.
        layers: Layers of each dense block.
        blocks: Dense blocks.
        channels: Width of the reconstruction.
    """

    family: Literal["srdensenet"] = "srdensenet"
    growth: int = 16
    layers: int = 8
    blocks: int = 8
    channels: int = 256

    def build(self) -> Srdensenet:
        """Return the network, freshly initialized."""
        return Srdensenet(self)


class DenseBlock(nn.Module):
    """Layers that each read the concatenated outputs of all layers before."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        widths = [inputs, *(growth * count for count in range(1, layers))]
        self.layers = nn.ModuleList(
            nn.Sequential(conv(width, growth), nn.ReLU()) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn N × inputs × H × W into N × growth·layers × H × W features."""
        first, *others = self.layers
        outputs = first(x)
        for layer in others:
            outputs = torch.cat([outputs, layer(outputs)], dim=1)
        dense: Tensor = outputs
        return dense


class Srdensenet(OneScaleNetwork):
    """SRDenseNet, as ``config`` says."""

    def __init__(self, config: SrdensenetConfig) -> None:
        super().__init__()
        width, channels = config.growth * config.layers, config.channels
        self.entry = nn.Sequential(conv(config.colours, width), nn.ReLU())
        self.blocks = nn.ModuleList(
            DenseBlock(width, config.growth, config.layers) for _ in range(config.blocks)
        )
        self.bottleneck = nn.Sequential(conv(width * (config.blocks + 1), channels, 1), nn.ReLU())
        stages: list[nn.Module] = []
        for factor in upsampling_factors(config.scale):
            stages += [transposed(channels, channels, 3, factor), nn.ReLU()]
        self.upsampler = nn.Sequential(*stages)
        self.exit = conv(channels, config.colours)

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        outputs = [self.entry(picture)]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        features = self.bottleneck(torch.cat(outputs, dim=1))
        restored: Tensor = self.exit(self.upsampler(features))
        return restored
