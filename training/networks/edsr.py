"""EDSR, residual blocks without batch normalization, wide and deep.

Lim, Son, Kim, Nah and Lee, "Enhanced Deep Residual Networks for Single Image Super-Resolution",
CVPRW 2017, Sec. 3.2: 32 blocks of 256 channels whose residuals are scaled by 0.1. The baseline
has 16 blocks of 64 channels and no scaling.
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
    means_of,
    residual_block,
    shuffle_upsampler,
)


@dataclass(frozen=True)
class EdsrConfig(OneScaleConfig):
    """The shape of an EDSR.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        blocks: Residual blocks.
        gain: Factor of every residual.
    """

    family: Literal["edsr"] = "edsr"
    channels: int = 256
    blocks: int = 32
    gain: float = 0.1

    def build(self) -> Edsr:
        """Return the network, freshly initialized."""
        return Edsr(self)


class Edsr(OneScaleNetwork):
    """EDSR, as ``config`` says."""

    means: Tensor

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.register_buffer("means", means_of(colours), persistent=False)
        blocks = [residual_block(channels, gain=config.gain) for _ in range(config.blocks)]
        self.body = nn.Sequential(
            conv(colours, channels),
            Residual(*blocks, conv(channels, channels)),
            shuffle_upsampler(channels, config.scale),
            conv(channels, colours),
        )

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.means + self.body(picture - self.means)
        return restored
