"""SRCNN, the first convolutional network for super-resolution.

Dong, Loy, He and Tang, "Image Super-Resolution Using Deep Convolutional Networks", PAMI 2016,
Sec. 3.1: three convolutions over the enlarged picture. Table 2.4 counts its 9–5–5 variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.networks.blocks import EnlargingNetwork, ManyScalesConfig, conv


@dataclass(frozen=True)
class SrcnnConfig(ManyScalesConfig):
    """The shape of an SRCNN.

    Attributes:
        family: Name of the family.
        widths: Output channels of the first two convolutions.
        sizes: Sides of the three kernels, odd.
    """

    family: Literal["srcnn"] = "srcnn"
    widths: tuple[int, int] = (64, 32)
    sizes: tuple[int, int, int] = (9, 5, 5)

    def build(self) -> Srcnn:
        """Return the network, freshly initialized."""
        return Srcnn(self)


class Srcnn(EnlargingNetwork):
    """SRCNN, as ``config`` says."""

    def __init__(self, config: SrcnnConfig) -> None:
        super().__init__()
        (first, second), colours = config.widths, config.colours
        extraction, mapping, reconstruction = config.sizes
        self.body = nn.Sequential(
            conv(colours, first, extraction),
            nn.ReLU(),
            conv(first, second, mapping),
            nn.ReLU(),
            conv(second, colours, reconstruction),
        )

    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""
        restored: Tensor = self.body(enlarged)
        return restored
