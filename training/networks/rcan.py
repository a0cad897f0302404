"""RCAN, residual groups of blocks with channel attention.

Zhang, Li, Li, Wang, Zhong and Fu, "Image Super-Resolution Using Very Deep Residual Channel
Attention Networks", ECCV 2018, Sec. 3: 10 groups of 20 blocks, reduction 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import (
    ChannelAttention,
    OneScaleConfig,
    OneScaleNetwork,
    Residual,
    conv,
    means_of,
    shuffle_upsampler,
)


@dataclass(frozen=True)
class RcanConfig(OneScaleConfig):
    """The shape of an RCAN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        residual_groups: Residual groups.
        blocks: Blocks of each group.
        reduction: Channels for each channel inside the attention.
    """

    family: Literal["rcan"] = "rcan"
    channels: int = 64
    residual_groups: int = 10
    blocks: int = 20
    reduction: int = 16

    def build(self) -> Rcan:
        """Return the network, freshly initialized."""
        return Rcan(self)


class Rcan(OneScaleNetwork):
    """RCAN, as ``config`` says."""

    means: Tensor

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.register_buffer("means", means_of(colours), persistent=False)

        def block() -> Residual:
            first, second = conv(channels, channels), conv(channels, channels)
            attention = ChannelAttention(channels, config.reduction)
            return Residual(first, nn.ReLU(), second, attention)

        groups = [
            Residual(*(block() for _ in range(config.blocks)), conv(channels, channels))
            for _ in range(config.residual_groups)
        ]
        self.body = nn.Sequential(
            conv(colours, channels),
            Residual(*groups, conv(channels, channels)),
            shuffle_upsampler(channels, config.scale),
            conv(channels, colours),
        )

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.means + self.body(picture - self.means)
        return restored
