"""What the networks of the field share: settings of their configurations, and building blocks.

The field is the networks that CARN is compared with (``benchmarks.field``). Their pictures have
three colours here; most papers restore luma alone, and ``colours=1`` builds that, for counting.
Batch normalization is left out where the papers use it (SRResNet, DRRN, MemNet, DnCNN, BTSRN):
published parameters and MultAdds do not count it, EDSR showed that super-resolution trains better
without, and a run keeps and averages parameters alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.interface import RGB_MEANS, RestorationNetwork, UsualConfig


@dataclass(frozen=True)
class FieldConfig(UsualConfig, ABC):
    """Settings of every network of the field.

    Attributes:
        colours: Channels of pictures: 3 for RGB, 1 for luma.
    """

    colours: Literal[1, 3] = 3

    def __post_init__(self) -> None:
        if self.colours not in {1, 3}:
            raise ValueError(f"colours={self.colours}: expected 3 (RGB) or 1 (luma)")
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(type(one) is int and one < 1 for one in numbers):
                raise ValueError(f"{field.name}={value}: expected 1 or more")

    @abstractmethod
    def build(self) -> RestorationNetwork:
        """Return the network, freshly initialized."""


@dataclass(frozen=True)
class OneScaleConfig(FieldConfig):
    """Settings of a network that is built for one scale.

    Attributes:
        scale: Upscaling factor: 2, 3 or 4.
    """

    scale: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scales(self.scales)

    @property
    def scales(self) -> tuple[int, ...]:
        """The only scale."""
        return (self.scale,)


@dataclass(frozen=True)
class ManyScalesConfig(FieldConfig):
    """Settings of a network that serves several scales.

    Attributes:
        scales: Upscaling factors, each 2, 3 or 4.
    """

    scales: tuple[int, ...] = (2, 3, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scales(self.scales)


def check_scales(scales: tuple[int, ...], known: Iterable[int] = (2, 3, 4)) -> None:
    """Check the scales of a configuration.

    Raises:
        ValueError: If there are none, others than ``known``, or one twice.
    """
    once = set(scales)
    if not once or not once <= set(known) or len(once) < len(scales):
        *most, last = map(str, known)
        raise ValueError(
            f"scales={scales}: expected some of {', '.join(most)} and {last}, each once"
        )


class OneScaleNetwork(RestorationNetwork):
    """A network of one scale, which is exported as it is."""

    @abstractmethod
    def forward(self, picture: Tensor, scale: int | None = None) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1] at the only scale."""

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network itself."""
        return self


class EnlargingNetwork(RestorationNetwork):
    """A network that enlarges a picture by bicubic interpolation first, and refines the result.

    It serves any scale with the same weights, and all its convolutions run at the output's size.
    """

    @abstractmethod
    def refined(self, enlarged: Tensor) -> Tensor:
        """Refine N × C × H × W pictures in [0, 1]; their size stays."""

    def forward(self, picture: Tensor, scale: int) -> Tensor:
        """Restore N × C × H × W pictures in [0, 1], ``scale`` times larger, not clamped."""
        return self.refined(enlarged(picture, scale))

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network with its enlargement by one scale."""
        return _EnlargingAtScale(self, scale)


class _EnlargingAtScale(nn.Module):
    def __init__(self, network: EnlargingNetwork, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.network(image, self.scale)
        return restored


def enlarged(picture: Tensor, scale: int) -> Tensor:
    """Enlarge pictures by torch's bicubic interpolation (a = −0.75, edges repeated).

    The papers enlarge by MATLAB's ``imresize`` (a = −0.5), which no format has as an operator. The
    network learns what differs; files hold what it was trained with.
    """
    if scale == 1:
        return picture
    return F.interpolate(picture, scale_factor=scale, mode="bicubic")


def means_of(colours: int) -> Tensor:
    """Return the mean colour of DIV2K, or its average for one colour, 1 × C × 1 × 1."""
    means = torch.tensor(RGB_MEANS).view(1, 3, 1, 1)
    return means if colours == 3 else means.mean(1, keepdim=True)


def conv(inputs: int, outputs: int, size: int = 3, bias: bool = True) -> nn.Conv2d:
    """Return a convolution that keeps height and width; ``size`` is odd."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)


def transposed(
    inputs: int, outputs: int, size: int, stride: int, groups: int = 1, bias: bool = True
) -> nn.ConvTranspose2d:
    """Return a transposed convolution that makes a picture exactly ``stride`` times larger."""
    padding = (size - stride + 1) // 2
    extra = stride - size + 2 * padding
    return nn.ConvTranspose2d(
        inputs, outputs, size, stride, padding, extra, groups=groups, bias=bias
    )


def plain_body(colours: int, channels: int, layers: int) -> nn.Sequential:
    """Return ``layers`` 3×3 convolutions from pictures to pictures, a ReLU between each two."""
    widths = [colours, *[channels] * (layers - 1), colours]
    first, *others = (conv(*pair) for pair in pairwise(widths))
    return nn.Sequential(first, *(layer for one in others for layer in (nn.ReLU(), one)))


class Residual(nn.Module):
    """Layers in a row, times ``gain``, plus the input."""

    def __init__(self, *layers: nn.Module, gain: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Refine N × C × H × W features."""
        change: Tensor = self.body(x)
        return x + (change if self.gain == 1 else change * self.gain)


def residual_block(channels: int, size: int = 3, gain: float = 1.0) -> Residual:
    """Return conv–ReLU–conv, times ``gain``, plus the input: EDSR's residual block."""
    return Residual(
        conv(channels, channels, size), nn.ReLU(), conv(channels, channels, size), gain=gain
    )


def upsampling_factors(scale: int) -> tuple[int, ...]:
    """Return the factors of the upsampling stages: twice 2 for ×4, else the scale."""
    return (2, 2) if scale == 4 else (scale,)


def shuffle_upsampler(channels: int, scale: int) -> nn.Sequential:
    """Return convolution–shuffle for ×2 and ×3, and twice the ×2 stage for ×4."""
    layers: list[nn.Module] = []
    for factor in upsampling_factors(scale):
        layers += [conv(channels, channels * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


class ChannelAttention(nn.Module):
    """Weighs channels by their averages over the picture: RCAN's squeeze and excitation."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.squeeze = conv(channels, inner, 1)
        self.excite = conv(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh N × C × H × W features."""
        return x * self.weights(x.mean((2, 3), keepdim=True))

    def weights(self, pooled: Tensor) -> Tensor:
        """Turn N × C × 1 × 1 statistics of the channels into their weights, 0 to 1."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))
