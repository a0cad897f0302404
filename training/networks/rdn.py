"""RDN, residual dense blocks fused over all their outputs.

Zhang, Tian, Kong, Zhong and Fu, "Residual Dense Network for Image Super-Resolution", CVPR 2018,
Sec. 3: 16 blocks of 8 layers with a growth of 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import (
    OneScaleConfig,
    OneScaleNetwork,
    conv,
    means_of,
    shuffle_upsampler,
)


@dataclass(frozen=True)
class RdnConfig(OneScaleConfig):
    """The shape of an RDN.

    Attributes:
        family: Name of the family.
        channels: Width between the blocks (G0).
        blocks: Residual dense blocks (D).
        layers: Layers of each block (C).
        growth: Channels that each layer adds (G).
    """

    family: Literal["rdn"] = "rdn"
    channels: int = 64
    blocks: int = 16
    layers: int = 8
    growth: int = 64

    def build(self) -> Rdn:
        """Return the network, freshly initialized."""
        return Rdn(self)


class ResidualDenseBlock(nn.Module):
    """Layers that each read all before them, fused by a 1×1 convolution, plus the input."""

    def __init__(self, channels: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            conv(channels + growth * index, growth) for index in range(layers)
        )
        self.fusion = conv(channels + growth * layers, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine N × C × H × W features."""
        dense = x
        for layer in self.layers:
            dense = torch.cat([dense, F.relu(layer(dense))], dim=1)
        refined: Tensor = x + self.fusion(dense)
        return refined


class Rdn(OneScaleNetwork):
    """RDN, as ``config`` says."""

    means: Tensor

    def __init__(self, config: RdnConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.register_buffer("means", means_of(colours), persistent=False)
        self.entry = conv(colours, channels)
        self.second = conv(channels, channels)
        self.blocks = nn.ModuleList(
            ResidualDenseBlock(channels, config.layers, config.growth) for _ in range(config.blocks)
        )
        self.fusion = nn.Sequential(
            conv(channels * config.blocks, channels, 1), conv(channels, channels)
        )
        self.upsampler = shuffle_upsampler(channels, config.scale)
        self.exit = conv(channels, colours)

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        shallow: Tensor = self.entry(picture - self.means)
        features, outputs = self.second(shallow), []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        fused = shallow + self.fusion(torch.cat(outputs, dim=1))
        restored: Tensor = self.means + self.exit(self.upsampler(fused))
        return restored
