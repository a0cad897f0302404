"""Total variation: how much restored patches change from pixel to pixel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from training.losses.loss import Loss, LossFunction, Patches


class TotalVariation(Loss):
    """The mean difference of neighbouring pixels, which smooth pictures keep small.

    The mean over horizontal pairs plus the mean over vertical pairs, the anisotropic form of Rudin,
    Osher and Fatemi, "Nonlinear total variation based noise removal algorithms", 1992.
    """

    kind: Literal["total-variation"] = "total-variation"

    def build(self, device: torch.device) -> LossFunction:
        """Return the variation; it needs nothing on the device."""
        return self.of

    def of(self, patches: Patches) -> Tensor:
        """Return the variation of the restored patches; the originals are not looked at."""
        restored = patches.restored
        return sum(
            (restored.diff(dim=axis).abs().mean() for axis in (2, 3)), start=restored.new_zeros(())
        )
