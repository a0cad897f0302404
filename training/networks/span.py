"""SPAN, whose attention has no parameters: features weigh themselves.

Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPRW 2024,
Sec. 3. Built as it is deployed, each 3×3 convolution as one layer; the branches that the paper
folds into it after training are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import OneScaleConfig, OneScaleNetwork, conv


@dataclass(frozen=True)
class SpanConfig(OneScaleConfig):
    """The shape of a SPAN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers: 48 in the paper's small variant, 52 in the other.
        blocks: Blocks with attention.
    """

    family: Literal["span"] = "span"
    channels: int = 48
    blocks: int = 6

    def build(self) -> Span:
        """Return the network, freshly initialized."""
        return Span(self)


class AttentiveBlock(nn.Module):
    """Three convolutions; their result plus the input is weighed by the result itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv(channels, channels)
        self.third = conv(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refine N × C × H × W features; also return those behind the first convolution."""
        first = F.silu(self.first(x))
        result: Tensor = self.third(F.silu(self.second(first)))
        return (result + x) * (torch.sigmoid(result) - 0.5), first


class Span(OneScaleNetwork):
    """SPAN, as ``config`` says."""

    def __init__(self, config: SpanConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.entry = conv(colours, channels)
        self.blocks = nn.ModuleList(AttentiveBlock(channels) for _ in range(config.blocks))
        self.last = conv(channels, channels)
        self.fusion = conv(4 * channels, channels, 1)
        self.upsampler = nn.Sequential(
            conv(channels, colours * config.scale**2), nn.PixelShuffle(config.scale)
        )

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        shallow = self.entry(picture)
        outputs, inside = [shallow], shallow
        for block in self.blocks:
            features, inside = block(outputs[-1])
            outputs.append(features)
        joined = torch.cat([shallow, self.last(outputs[-1]), outputs[1], inside], dim=1)
        restored: Tensor = self.upsampler(self.fusion(joined))
        return restored
