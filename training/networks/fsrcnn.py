"""FSRCNN, an hourglass at low resolution with one transposed convolution at the end.

Dong, Loy and Tang, "Accelerating the Super-Resolution Convolutional Neural Network", ECCV 2016,
Sec. 3: FSRCNN(d, s, m) = (56, 12, 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import OneScaleConfig, OneScaleNetwork, conv, transposed


@dataclass(frozen=True)
class FsrcnnConfig(OneScaleConfig):
    """The shape of an FSRCNN.

    Attributes:
        family: Name of the family.
        channels: Width of extraction and expansion (d).
        shrunk: Width of the mapping (s).
        layers: Convolutions of the mapping (m).
    """

    family: Literal["fsrcnn"] = "fsrcnn"
    channels: int = 56
    shrunk: int = 12
    layers: int = 4

    def build(self) -> Fsrcnn:
        """Return the network, freshly initialized."""
        return Fsrcnn(self)


class Fsrcnn(OneScaleNetwork):
    """FSRCNN, as ``config`` says."""

    def __init__(self, config: FsrcnnConfig) -> None:
        super().__init__()
        wide, narrow = config.channels, config.shrunk
        mapping = [conv(narrow, narrow) for _ in range(config.layers)]
        convolutions = [
            conv(config.colours, wide, 5),
            conv(wide, narrow, 1),
            *mapping,
            conv(narrow, wide, 1),
        ]
        self.body = nn.Sequential(
            *(layer for one in convolutions for layer in (one, nn.PReLU(one.out_channels)))
        )
        self.upsampler = transposed(wide, config.colours, 9, config.scale)

    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""
        restored: Tensor = self.upsampler(self.body(picture))
        return restored
