"""Distances of restored patches from their originals."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from training.losses.loss import Loss, LossFunction, Patches

_FLOOR = 1e-6
"""Added under roots, to keep their gradient finite at zero error; (a quarter grey level)²."""


class Distance(Loss):
    """The mean distance of patches from their originals.

    ``charbonnier`` is the root of each pixel's squared error, an l1 that is smooth at zero (Lai et
    al., "Deep Laplacian Pyramid Networks", CVPR 2017, eq. 2). ``rmse`` is the root of each patch's
    mean squared error. Like ``l2`` it rewards PSNR, but small errors of smooth patches weigh more,
    as they do in the mean PSNR of pictures.
    """

    kind: Literal["l1", "l2", "rmse", "charbonnier"] = "l1"
    luma: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="weight of luma (as in PSNR-Y), 0 to 1; R, G and B get the rest",
    )
    identity_weight: float = Field(
        default=1.0,
        gt=0,
        description="weight of pixels that the degradation left as they were",
    )

    @property
    def asks_what_was_untouched(self) -> bool:
        """Whether untouched pixels have a weight of their own."""
        return self.identity_weight != 1

    def build(self, device: torch.device) -> LossFunction:
        """Return the distance; it needs nothing on the device."""
        return self.of

    def of(self, patches: Patches) -> Tensor:
        """Return the mean distance of patches."""
        error = patches.restored - patches.original
        distances = self._pointwise(error).mean(1)
        if self.luma:
            distances = torch.lerp(distances, self._pointwise(_luma(error)), self.luma)
        if patches.untouched is not None:
            weighted = self.identity_weight * distances
            distances = torch.where(patches.untouched, weighted, distances)
        if self.kind == "rmse":
            return (distances.mean((1, 2)) + _FLOOR).sqrt().mean()
        return distances.mean()

    def _pointwise(self, error: Tensor) -> Tensor:
        if self.kind == "charbonnier":
            return (error.square() + _FLOOR).sqrt()
        return error.abs() if self.kind == "l1" else error.square()


def _luma(picture: Tensor) -> Tensor:
    """Return Y of N × 3 × H × W (ITU-R BT.601, full range).

    The weights are Python numbers: a tensor could not be copied to the GPU during graph capture.
    """
    red, green, blue = picture.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
