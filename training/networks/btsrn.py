"""BTSRN, residual blocks before and after the upsampling.

Fan et al., "Balanced Two-Stage Residual Networks for Image Super-Resolution", CVPRW 2017, Sec. 3:
six blocks at low and four at high resolution, each a 1×1 convolution that projects and a 3×3 one.
Upsampling adds a transposed convolution to repeated pixels. Its kernel is not known to us: here it
is as large as its stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import (
    OneScaleConfig,
    OneScaleNetwork,
    Residual,
    conv,
    transposed,
    upsampling_factors,
)


@dataclass(frozen=True)
class BtsrnConfig(OneScaleConfig):
    """The shape of a BTSRN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        low: Residual blocks before the upsampling.
        high: Residual blocks after the upsampling.
    """

    family: Literal["btsrn"] = "btsrn"
    channels: int = 64
    low: int = 6
    high: int = 4

    def build(self) -> Btsrn:
        """Return the network, freshly initialized."""
        return Btsrn(self)


class Upsampling(nn.Module):
    """Repeated pixels plus a transposed convolution."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.learned = transposed(channels, channels, factor, factor)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Turn N × C × H × W into N × C × factor·H × factor·W features."""
        larger: Tensor = F.interpolate(x, scale_factor=self.factor, mode="nearest") + self.learned(
            x
        )
        return larger


class Btsrn(OneScaleNetwork):
    """BTSRN, as ``config`` says."""

    def __init__(self, config: BtsrnConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours

        def blocks(count: int) -> list[Residual]:
            return [
                Residual(
                    nn.ReLU(), conv(channels, channels, 1), nn.ReLU(), conv(channels, channels)
                )
                for _ in range(count)
            ]

        self.entry = conv(colours, channels)
        self.low = nn.Sequential(*blocks(config.low))
        self.upsampler = nn.Sequential(
            *(Upsampling(channels, factor) for factor in upsampling_factors(config.scale))
        )
        self.high = nn.Sequential(*blocks(config.high))
        self.exit = nn.Sequential(nn.ReLU(), conv(channels, colours))

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.exit(self.high(self.upsampler(self.low(self.entry(picture)))))
        return restored
