"""DRRN, a residual unit of two convolutions used 25 times.

Tai, Yang and Liu, "Image Super-Resolution via Deep Recursive Residual Network", CVPR 2017, Sec. 3:
every unit of a block has the same weights and adds the output of the block's first convolution.
Table 2.4 counts DRRN B1U25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import EnlargingNetwork, ManyScalesConfig, conv


@dataclass(frozen=True)
class DrrnConfig(ManyScalesConfig):
    """The shape of a DRRN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        blocks: Recursive blocks, each with weights of its own (B).
        units: Uses of the residual unit in each block (U).
    """

    family: Literal["drrn"] = "drrn"
    channels: int = 128
    blocks: int = 1
    units: int = 25

    def build(self) -> Drrn:
        """Return the network, freshly initialized."""
        return Drrn(self)


class RecursiveBlock(nn.Module):
    """A convolution, and a residual unit used several times over it."""

    def __init__(self, entry: nn.Sequential, channels: int, units: int) -> None:
        super().__init__()
        self.entry = entry
        self.unit = nn.Sequential(
            nn.ReLU(), conv(channels, channels), nn.ReLU(), conv(channels, channels)
        )
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        """Turn N × inputs × H × W into N × channels × H × W features."""
        first: Tensor = self.entry(x)
        features = first
        for _ in range(self.units):
            features = first + self.unit(features)
        return features


class Drrn(EnlargingNetwork):
    """DRRN, as ``config`` says."""

    def __init__(self, config: DrrnConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        entries = [nn.Sequential(conv(colours, channels))]
        entries += [
            nn.Sequential(nn.ReLU(), conv(channels, channels)) for _ in range(config.blocks - 1)
        ]
        self.body = nn.Sequential(
            *(RecursiveBlock(entry, channels, config.units) for entry in entries),
            nn.ReLU(),
            conv(channels, colours),
        )

    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""
        restored: Tensor = enlarged + self.body(enlarged)
        return restored
