"""MS-SSIM: the similarity of structures at several sizes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import UserError
from training.losses.loss import Loss, LossFunction, Patches

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA, _WINDOW = 1.5, 11
_C1, _C2 = 0.01**2, 0.03**2
_FLOOR = 1e-6
"""Least similarity, which keeps the slope of its powers finite."""


class MsSsim(Loss):
    """One less the multi-scale SSIM of patches, of R, G and B each.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment",
    2003: contrast and structure at every size, luminance at the smallest. Patches must hold the
    window of 11 × 11 at the smallest size: 44 pixels of the original for three sizes, 176 for all
    five of the paper; the weights of fewer are divided by their sum. Weighted 0.84 beside an ``l1``
    of 0.16 it is the mix of Zhao et al., "Loss Functions for Image Restoration with Neural
    Networks", 2017, but for the Gaussian that weighs their l1 in a patch.
    """

    kind: Literal["ms-ssim"] = "ms-ssim"
    sizes: int = Field(default=3, ge=1, le=5, description="sizes, each half of the one before")

    def build(self, device: torch.device) -> LossFunction:
        """Return the loss, with the window on the device.

        Raises:
            UserError: If patches are too small for it.
        """
        offsets = torch.arange(_WINDOW, device=device) - _WINDOW // 2
        window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
        window = (window / window.sum()).expand(3, 1, 1, _WINDOW).contiguous()
        weights = [one / sum(_WEIGHTS[: self.sizes]) for one in _WEIGHTS[: self.sizes]]

        def ms_ssim(patches: Patches) -> Tensor:
            restored, original = patches.restored, patches.original
            least = _WINDOW * 2 ** (self.sizes - 1)
            if min(original.shape[2:]) < least:
                raise UserError(
                    f"losses: ms-ssim of {self.sizes} sizes needs patches of {least} pixels or "
                    f"more of the original; found {min(original.shape[2:])}: name fewer sizes"
                )
            similarity = restored.new_ones(())
            for number, weight in enumerate(weights):
                if number:
                    restored, original = F.avg_pool2d(restored, 2), F.avg_pool2d(original, 2)
                luminance, structure = _similarities(restored, original, window)
                last = number == len(weights) - 1
                mean = (luminance * structure if last else structure).mean((2, 3))
                similarity = similarity * mean.clamp(min=_FLOOR) ** weight
            return 1 - similarity.mean()

        return ms_ssim


def _similarities(x: Tensor, y: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM's two factors at every position of the window, N × 3 × h × w."""

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, window, groups=3), window.mT, groups=3)

    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x + y * y) - mean_x.square() - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return luminance, (2 * covariance + _C2) / (variances + _C2)
