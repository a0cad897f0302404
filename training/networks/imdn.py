"""IMDN, blocks that set aside a quarter of the channels after each convolution.

Hui, Gao, Yang and Wang, "Lightweight Image Super-Resolution with Information Multi-Distillation
Network", ACM Multimedia 2019, Sec. 3: six blocks of 64 channels; the attention weighs channels by
contrast, the standard deviation plus the mean over the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import ChannelAttention, OneScaleConfig, OneScaleNetwork, conv

_SLOPE = 0.05


@dataclass(frozen=True)
class ImdnConfig(OneScaleConfig):
    """The shape of an IMDN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers, a multiple of 4.
        blocks: Information multi-distillation blocks.
        reduction: Channels for each channel inside the attention.
    """

    family: Literal["imdn"] = "imdn"
    channels: int = 64
    blocks: int = 6
    reduction: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 4:
            raise ValueError(f"channels={self.channels}: expected a multiple of 4")

    def build(self) -> Imdn:
        """Return the network, freshly initialized."""
        return Imdn(self)


class ContrastAttention(ChannelAttention):
    """Weighs channels by their standard deviation plus their mean over the picture."""

    def forward(self, x: Tensor) -> Tensor:
        """Weigh N × C × H × W features."""
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        deviation = (centred * centred).mean((2, 3), keepdim=True).sqrt()
        return x * self.weights(deviation + mean)


class DistillationBlock(nn.Module):
    """Four convolutions; a quarter of the channels of the first three goes to the end at once."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        kept = channels // 4
        self.sizes = [kept, channels - kept]
        self.first = conv(channels, channels)
        self.second = conv(channels - kept, channels)
        self.third = conv(channels - kept, channels)
        self.fourth = conv(channels - kept, kept)
        self.attention = ContrastAttention(channels, reduction)
        self.fusion = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine N × C × H × W features."""
        outputs, rest = [], x
        for layer in (self.first, self.second, self.third):
            kept, rest = torch.split(F.leaky_relu(layer(rest), _SLOPE), self.sizes, dim=1)
            outputs.append(kept)
        outputs.append(self.fourth(rest))
        refined: Tensor = x + self.fusion(self.attention(torch.cat(outputs, dim=1)))
        return refined


class Imdn(OneScaleNetwork):
    """IMDN, as ``config`` says."""

    def __init__(self, config: ImdnConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.entry = conv(colours, channels)
        self.blocks = nn.ModuleList(
            DistillationBlock(channels, config.reduction) for _ in range(config.blocks)
        )
        self.fusion = nn.Sequential(
            conv(channels * config.blocks, channels, 1),
            nn.LeakyReLU(_SLOPE),
            conv(channels, channels),
        )
        self.upsampler = nn.Sequential(
            conv(channels, colours * config.scale**2), nn.PixelShuffle(config.scale)
        )

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        shallow: Tensor = self.entry(picture)
        features, outputs = shallow, []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        restored: Tensor = self.upsampler(shallow + self.fusion(torch.cat(outputs, dim=1)))
        return restored
