"""LapSRN, which doubles a picture level by level and adds a residual at each.

Lai, Huang, Ahuja and Yang, "Deep Laplacian Pyramid Networks for Fast and Accurate
Super-Resolution", CVPR 2017, Sec. 3: ten convolutions a level. Features are enlarged by transposed
3×3 convolutions, as in the authors' code, pictures by 4×4 ones that begin as bilinear
interpolation. The paper trains the picture of every level; here the last one is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.networks.blocks import OneScaleConfig, OneScaleNetwork, conv, transposed

_SLOPE = 0.2


@dataclass(frozen=True)
class LapsrnConfig(OneScaleConfig):
    """The shape of a LapSRN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        layers: Convolutions of each level, before the transposed one.
    """

    family: Literal["lapsrn"] = "lapsrn"
    channels: int = 64
    layers: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in {2, 4}:
            raise ValueError(f"scale={self.scale}: every level doubles a picture; expected 2 or 4")

    def build(self) -> Lapsrn:
        """Return the network, freshly initialized."""
        return Lapsrn(self)


class Level(nn.Module):
    """One doubling: features, and the picture with the residual that they predict."""

    def __init__(self, channels: int, layers: int, colours: int) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for _ in range(layers):
            body += [conv(channels, channels), nn.LeakyReLU(_SLOPE)]
        self.features = nn.Sequential(
            *body, transposed(channels, channels, 3, 2), nn.LeakyReLU(_SLOPE)
        )
        self.residual = conv(channels, colours)
        self.enlargement = transposed(colours, colours, 4, 2, groups=colours, bias=False)
        tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.enlargement.weight.copy_(torch.outer(tent, tent))

    def forward(self, features: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Turn features and picture, N × · × H × W, into those of twice the size."""
        features = self.features(features)
        larger: Tensor = self.enlargement(picture)
        return features, larger + self.residual(features)


class Lapsrn(OneScaleNetwork):
    """LapSRN, as ``config`` says."""

    def __init__(self, config: LapsrnConfig) -> None:
        super().__init__()
        channels, colours = config.channels, config.colours
        self.entry = nn.Sequential(conv(colours, channels), nn.LeakyReLU(_SLOPE))
        self.levels = nn.ModuleList(
            Level(channels, config.layers, colours) for _ in range(config.scale // 2)
        )

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        features: Tensor = self.entry(picture)
        for level in self.levels:
            features, picture = level(features, picture)
        return picture
