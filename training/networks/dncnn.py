"""DnCNN, which predicts what is wrong with a picture and takes it away.

Zhang, Zuo, Chen, Meng and Zhang, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for
Image Denoising", TIP 2017, Sec. III: 17 convolutions, here without the paper's batch
normalization. It keeps the size of a picture; at other scales it enlarges by bicubic interpolation
first, as the paper does for super-resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from training.networks.blocks import EnlargingNetwork, FieldConfig, check_scales, plain_body


@dataclass(frozen=True)
class DncnnConfig(FieldConfig):
    """The shape of a DnCNN.

    Attributes:
        family: Name of the family.
        channels: Width of the hidden layers.
        layers: Convolutions, the first and the last included.
        scales: Upscaling factors, each 1, 2, 3 or 4; a recipe's task takes 1 or others, not both.
    """

    family: Literal["dncnn"] = "dncnn"
    channels: int = 64
    layers: int = 17
    scales: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scales(self.scales, (1, 2, 3, 4))

    def build(self) -> Dncnn:
        """Return the network, freshly initialized."""
        return Dncnn(self)


class Dncnn(EnlargingNetwork):
    """DnCNN, as ``config`` says."""

    def __init__(self, config: DncnnConfig) -> None:
        super().__init__()
        self.damage = plain_body(config.colours, config.channels, config.layers)

    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""
        refined: Tensor = enlarged - self.damage(enlarged)
        return refined
