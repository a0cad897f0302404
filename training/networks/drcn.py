"""DRCN, one convolution used sixteen times, with a prediction after each use.

Kim, Lee and Lee, "Deeply-Recursive Convolutional Network for Image Super-Resolution", CVPR 2016,
Sec. 3: embedding, recursive inference, a reconstruction shared by all predictions, and their
weighted sum. The paper also trains every prediction by itself; here only their sum is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import EnlargingNetwork, ManyScalesConfig, conv


@dataclass(frozen=True)
class DrcnConfig(ManyScalesConfig):
    """The shape of a DRCN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        recursions: Uses of the shared convolution.
    """

    family: Literal["drcn"] = "drcn"
    channels: int = 256
    recursions: int = 16

    def build(self) -> Drcn:
        """Return the network, freshly initialized."""
        return Drcn(self)


class Drcn(EnlargingNetwork):
    """DRCN, as ``config`` says."""

    def __init__(self, config: DrcnConfig) -> None:
        super().__init__()
        channels, colours, count = config.channels, config.colours, config.recursions
        self.embedding = nn.Sequential(
            conv(colours, channels), nn.ReLU(), conv(channels, channels), nn.ReLU()
        )
        self.inference = conv(channels, channels)
        self.reconstruction = nn.Sequential(
            conv(channels, channels), nn.ReLU(), conv(channels, colours)
        )
        self.shares = nn.ParameterList(torch.full((1, 1, 1, 1), 1 / count) for _ in range(count))

    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""
        restored, features = enlarged, self.embedding(enlarged)
        for share in self.shares:
            features = F.relu(self.inference(features))
            restored = restored + self.reconstruction(features) * share
        return restored
