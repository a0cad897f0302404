"""SRResNet, residual blocks at low resolution and shuffles at the end.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", CVPR 2017, Sec. 2.1 and Fig. 4: the generator of SRGAN, without its batch normalization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import (
    OneScaleConfig,
    OneScaleNetwork,
    Residual,
    conv,
    upsampling_factors,
)


@dataclass(frozen=True)
class SrresnetConfig(OneScaleConfig):
    """The shape of an SRResNet.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        blocks: Residual blocks.
    """

    family: Literal["srresnet"] = "srresnet"
    channels: int = 64
    blocks: int = 16

    def build(self) -> Srresnet:
        """Return the network, freshly initialized."""
        return Srresnet(self)


class Srresnet(OneScaleNetwork):
    """SRResNet, as ``config`` says."""

    def __init__(self, config: SrresnetConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.entry = nn.Sequential(conv(colours, channels, 9), nn.PReLU())
        blocks = [
            Residual(conv(channels, channels), nn.PReLU(), conv(channels, channels))
            for _ in range(config.blocks)
        ]
        self.body = Residual(*blocks, conv(channels, channels))
        stages: list[nn.Module] = []
        for factor in upsampling_factors(config.scale):
            stages += [
                conv(channels, channels * factor**2),
                nn.PixelShuffle(factor),
                nn.PReLU(),
            ]
        self.upsampler = nn.Sequential(*stages)
        self.exit = conv(channels, colours, 9)

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.exit(self.upsampler(self.body(self.entry(picture))))
        return restored
