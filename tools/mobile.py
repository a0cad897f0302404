"""Small networks of others for phones, as a user's Python file would hold them.

``docs/networks.md`` says what their files are proven to do, and ``docs/own-network.md`` how such a
file enters the line. Weights are random; structures are those of the papers at inference.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class QuickSRNet(nn.Module):
    """Convolutions with clipped ReLUs, and a shuffle (Berger et al. 2023, section 3).

    Args:
        channels: Width of the body.
        layers: Convolutions of the body.
        scale: Upscaling factor.
    """

    def __init__(self, channels: int = 32, layers: int = 2, scale: int = 2) -> None:
        super().__init__()
        body = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers)]
        convolutions = [nn.Conv2d(3, channels, 3, padding=1), *body]
        bent = [part for conv in convolutions for part in (conv, nn.Hardtanh(0, 1))]
        last = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        self.layers = nn.Sequential(*bent, last, nn.PixelShuffle(scale), nn.Hardtanh(0, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge N × 3 × H × W pictures in [0, 1]."""
        enlarged: Tensor = self.layers(image)
        return enlarged


class XLSR(nn.Module):
    """Convolutions in four groups that a 1×1 convolution mixes (Ayazoglu 2021, Fig. 1).

    Args:
        channels: Width of the body.
        blocks: Blocks of a grouped and a 1×1 convolution.
        scale: Upscaling factor.
    """

    def __init__(self, channels: int = 32, blocks: int = 3, scale: int = 3) -> None:
        super().__init__()
        half = channels // 2
        self.first = nn.Conv2d(3, half, 3, padding=1)
        self.widen = nn.Conv2d(half, channels, 1)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=1, groups=4),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels, 1),
                )
                for _ in range(blocks)
            )
        )
        self.join = nn.Conv2d(channels + half, channels, 1)
        self.last = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge N × 3 × H × W pictures in [0, 1]."""
        first = self.first(image)
        features = torch.cat([first, self.blocks(torch.relu(self.widen(first)))], 1)
        enlarged: Tensor = self.shuffle(self.last(torch.relu(self.join(features))).clamp(0, 1))
        return enlarged


class SESR(nn.Module):
    """Collapsed linear blocks with PReLUs, a long and an input residual (Bhardwaj et al. 2022).

    Args:
        channels: Width of the body.
        blocks: Collapsed blocks, each one 3×3 convolution.
        scale: Upscaling factor.
    """

    def __init__(self, channels: int = 16, blocks: int = 3, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Sequential(nn.Conv2d(3, channels, 5, padding=2), nn.PReLU(channels))
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels))
                for _ in range(blocks)
            )
        )
        self.last = nn.Conv2d(channels, 3 * scale**2, 5, padding=2)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge N × 3 × H × W pictures in [0, 1]."""
        features = self.first(image)
        residual: Tensor = self.shuffle(self.last(features + self.body(features)))
        return residual + repeated(image, self.scale)


class ABPN(nn.Module):
    """Plain convolutions on top of the picture, repeated and clipped (Du et al. 2021, Fig. 2).

    Args:
        channels: Width of the body.
        layers: Convolutions of the body.
        scale: Upscaling factor.
    """

    def __init__(self, channels: int = 28, layers: int = 4, scale: int = 3) -> None:
        super().__init__()
        self.scale = scale
        widths = [3, *[channels] * (layers + 1)]
        bent = [
            part
            for inputs, outputs in pairwise(widths)
            for part in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())
        ]
        wide = 3 * scale**2
        self.layers = nn.Sequential(
            *bent,
            nn.Conv2d(channels, wide, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1),
        )
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge N × 3 × H × W pictures in [0, 1]."""
        residual: Tensor = self.shuffle(self.layers(image))
        return (residual + repeated(image, self.scale)).clamp(0, 1)


def repeated(image: Tensor, scale: int) -> Tensor:
    """Repeat every pixel scale × scale times, as both networks do by repeated channels."""
    return functional.interpolate(image, scale_factor=scale, mode="nearest")
