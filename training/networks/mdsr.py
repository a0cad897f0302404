"""MDSR, EDSR's body shared by several scales.

Lim, Son, Kim, Nah and Lee, "Enhanced Deep Residual Networks for Single Image Super-Resolution",
CVPRW 2017, Sec. 3.3: each scale has two residual blocks of 5×5 convolutions before the body and an
upsampler behind it. The baseline has 16 blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import (
    ManyScalesConfig,
    Residual,
    conv,
    means_of,
    residual_block,
    shuffle_upsampler,
)
from training.networks.interface import RestorationNetwork


@dataclass(frozen=True)
class MdsrConfig(ManyScalesConfig):
    """The shape of an MDSR.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        blocks: Residual blocks of the shared body.
    """

    family: Literal["mdsr"] = "mdsr"
    channels: int = 64
    blocks: int = 80

    def build(self) -> Mdsr:
        """Return the network, freshly initialized."""
        return Mdsr(self)


class Mdsr(RestorationNetwork):
    """MDSR, as ``config`` says."""

    def __init__(self, config: MdsrConfig) -> None:
        super().__init__()
        channels, scales, self.colours = config.channels, config.scales, config.colours
        self.entry = conv(config.colours, channels)
        self.heads = nn.ModuleDict(
            {
                f"x{scale}": nn.Sequential(*(residual_block(channels, 5) for _ in range(2)))
                for scale in scales
            }
        )
        blocks = [residual_block(channels) for _ in range(config.blocks)]
        self.body = Residual(*blocks, conv(channels, channels))
        self.upsamplers = nn.ModuleDict(
            {f"x{scale}": shuffle_upsampler(channels, scale) for scale in scales}
        )
        self.exit = conv(channels, config.colours)

    def forward(self, picture: Tensor, scale: int) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1], ``scale`` times larger, not clamped."""
        restored: Tensor = self.at_scale(scale)(picture)
        return restored

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network reduced to one of its scales."""
        return MdsrAtScale(self, scale)


class MdsrAtScale(nn.Module):
    """MDSR reduced to one scale: the module that is exported and measured."""

    means: Tensor

    def __init__(self, network: Mdsr, scale: int) -> None:
        super().__init__()
        means = means_of(network.colours).to(network.exit.weight.device)
        self.register_buffer("means", means, persistent=False)
        self.entry = network.entry
        self.head = network.heads[f"x{scale}"]
        self.body = network.body
        self.upsampler = network.upsamplers[f"x{scale}"]
        self.exit = network.exit

    def forward(self, image: Tensor) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the one scale."""
        features = self.body(self.head(self.entry(image - self.means)))
        restored: Tensor = self.means + self.exit(self.upsampler(features))
        return restored
