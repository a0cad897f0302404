"""VDSR, twenty convolutions that add what the enlarged picture lacks.

Kim, Lee and Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR
2016, Sec. 3.1. One network serves all scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from training.networks.blocks import EnlargingNetwork, ManyScalesConfig, plain_body


@dataclass(frozen=True)
class VdsrConfig(ManyScalesConfig):
    """The shape of a VDSR.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        layers: Convolutions, the first and the last included.
    """

    family: Literal["vdsr"] = "vdsr"
    channels: int = 64
    layers: int = 20

    def build(self) -> Vdsr:
        """Return the network, freshly initialized."""
        return Vdsr(self)


class Vdsr(EnlargingNetwork):
    """VDSR, as ``config`` says."""

    def __init__(self, config: VdsrConfig) -> None:
        super().__init__()
        self.detail = plain_body(config.colours, config.channels, config.layers)

    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""
        refined: Tensor = enlarged + self.detail(enlarged)
        return refined
