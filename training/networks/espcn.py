"""ESPCN, which convolves at low resolution and shuffles channels into pixels at the end.

Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", CVPR 2016, Sec. 3: (f, n) = (5, 64), (3, 32), 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import OneScaleConfig, OneScaleNetwork, conv


@dataclass(frozen=True)
class EspcnConfig(OneScaleConfig):
    """The shape of an ESPCN.

    Attributes:
        family: Name of the family.
        widths: Output channels of the convolutions before the last one.
    """

    family: Literal["espcn"] = "espcn"
    widths: tuple[int, ...] = (64, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths:
            raise ValueError("widths: expected at least one")

    def build(self) -> Espcn:
        """Return the network, freshly initialized."""
        return Espcn(self)


class Espcn(OneScaleNetwork):
    """ESPCN, as ``config`` says."""

    def __init__(self, config: EspcnConfig) -> None:
        super().__init__()
        first, *_, last = widths = config.widths
        layers: list[nn.Module] = [conv(config.colours, first, 5), nn.Tanh()]
        for inputs, outputs in pairwise(widths):
            layers += [conv(inputs, outputs), nn.Tanh()]
        layers += [conv(last, config.colours * config.scale**2), nn.PixelShuffle(config.scale)]
        self.body = nn.Sequential(*layers)

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.body(picture)
        return restored
