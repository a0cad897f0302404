"""SelNet, whose selection units learn which values pass in place of a ReLU.

Choi and Kim, "A Deep Convolutional Neural Network with Selection Units for Super-Resolution",
CVPRW 2017, Sec. 3. The published counts at ×2, ×3 and ×4 have one solution: 3×3 convolutions to
64 channels, 20 more of them, 21 selection units, a sub-pixel convolution and one to three colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import OneScaleConfig, OneScaleNetwork, Residual, conv


@dataclass(frozen=True)
class SelnetConfig(OneScaleConfig):
    """The shape of a SelNet.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        blocks: Residual units, of two convolutions and two selection units each.
    """

    family: Literal["selnet"] = "selnet"
    channels: int = 64
    blocks: int = 10

    def build(self) -> Selnet:
        """Return the network, freshly initialized."""
        return Selnet(self)


class SelectionUnit(nn.Module):
    """The input, times the sigmoid of a 1×1 convolution of its ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.selection = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Select among N × C × H × W features."""
        return x * torch.sigmoid(self.selection(F.relu(x)))


class Selnet(OneScaleNetwork):
    """SelNet, as ``config`` says."""

    def __init__(self, config: SelnetConfig) -> None:
        super().__init__()
        channels, colours, scale = config.channels, config.colours, config.scale
        self.entry = nn.Sequential(conv(colours, channels), SelectionUnit(channels))
        self.body = nn.Sequential(
            *(
                Residual(
                    conv(channels, channels),
                    SelectionUnit(channels),
                    conv(channels, channels),
                    SelectionUnit(channels),
                )
                for _ in range(config.blocks)
            )
        )
        self.upsampler = nn.Sequential(
            conv(channels, channels * scale**2), nn.PixelShuffle(scale), nn.ReLU()
        )
        self.exit = conv(channels, colours)

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.exit(self.upsampler(self.body(self.entry(picture))))
        return restored
