"""The discriminator of PCARN, which tells restored patches from originals, place by place."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_LAYERS = (
    (64, 4, 2),
    (128, 3, 1),
    (128, 4, 2),
    (256, 3, 1),
    (256, 4, 2),
    (512, 3, 1),
    (512, 3, 1),
)
"""Channels, side of the kernel and stride of the layers that are normalized, the second to eighth.
"""
_STRIDE = 8


class Discriminator(nn.Module):
    """Nine convolutions (the thesis, Fig. 2.1) on pictures reduced by average pooling.

    Args:
        pool: Side of the squares that are averaged; 1 takes pictures as they are.
        slope: Of the LeakyReLUs below zero.
    """

    def __init__(self, pool: int, slope: float) -> None:
        super().__init__()
        self.pool = pool
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.LeakyReLU(slope)]
        before = 64
        for channels, side, stride in _LAYERS:
            layers += [
                nn.Conv2d(before, channels, side, stride, padding=1),
                nn.BatchNorm2d(channels),
                nn.LeakyReLU(slope),
            ]
            before = channels
        layers.append(nn.Conv2d(before, 1, 3, padding=1))
        self.body = nn.Sequential(*layers)

    @property
    def least_side(self) -> int:
        """Side of the smallest picture that it can judge."""
        return self.pool * _STRIDE

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits that pictures, N × 3 × H × W in [0, 1], are originals: N × 1 × h × w.

        The logistic function of a logit is the probability at its place, of 8·pool pixels a side.
        """
        reduced = F.avg_pool2d(pictures, self.pool) if self.pool > 1 else pictures
        logits: Tensor = self.body(reduced)
        return logits
