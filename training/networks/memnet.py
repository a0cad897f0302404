"""MemNet, memory blocks whose gates choose among short-term and long-term features.

Tai, Yang, Liu and Xu, "MemNet: A Persistent Memory Network for Image Restoration", ICCV 2017,
Sec. 3: the basic network M6R6. The variant with a prediction after every block is not built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.networks.blocks import EnlargingNetwork, ManyScalesConfig, Residual, conv


@dataclass(frozen=True)
class MemnetConfig(ManyScalesConfig):
    """The shape of a MemNet.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        blocks: Memory blocks (M).
        recursions: Uses of the residual unit in each block (R).
    """

    family: Literal["memnet"] = "memnet"
    channels: int = 64
    blocks: int = 6
    recursions: int = 6

    def build(self) -> Memnet:
        """Return the network, freshly initialized."""
        return Memnet(self)


class MemoryBlock(nn.Module):
    """A residual unit used several times, and a gate over its outputs and all earlier blocks'."""

    def __init__(self, channels: int, recursions: int, memories: int) -> None:
        super().__init__()
        self.unit = Residual(
            nn.ReLU(), conv(channels, channels), nn.ReLU(), conv(channels, channels)
        )
        self.recursions = recursions
        self.gate = nn.Sequential(nn.ReLU(), conv(channels * (recursions + memories), channels, 1))

    def forward(self, memories: list[Tensor]) -> Tensor:
        """Turn the features of all earlier blocks, N × C × H × W each, into the next ones."""
        features, short = memories[-1], []
        for _ in range(self.recursions):
            features = self.unit(features)
            short.append(features)
        gated: Tensor = self.gate(torch.cat([*short, *memories], dim=1))
        return gated


class Memnet(EnlargingNetwork):
    """MemNet, as ``config`` says."""

    def __init__(self, config: MemnetConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.entry = conv(colours, channels)
        self.blocks = nn.ModuleList(
            MemoryBlock(channels, config.recursions, index + 1) for index in range(config.blocks)
        )
        self.exit = nn.Sequential(nn.ReLU(), conv(channels, colours))

    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""
        memories = [self.entry(enlarged)]
        for block in self.blocks:
            memories.append(block(memories))
        restored: Tensor = enlarged + self.exit(memories[-1])
        return restored
