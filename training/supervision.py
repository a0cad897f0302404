"""Supervised teaching: restored patches are compared with their originals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from training.configuration import Configuration


class Supervision(Configuration):
    """How a network is taught: by originals, at one scale after another or at all at once."""

    kind: Literal["supervised"] = "supervised"
    scale_weights: dict[int, NonNegativeFloat] = Field(
        default_factory=dict, description="how often a scale is trained, in proportion; 1 if absent"
    )
    all_scales: bool = Field(
        default=False, description="each step takes patches of all scales, not of a random scale"
    )
    revive_at: tuple[NonNegativeInt, ...] = Field(
        default=(), description="steps before which dead channels are revived"
    )

    def shares(self, scales: Sequence[int]) -> list[float]:
        """Return the part of all training that each scale gets; they add up to 1.

        Raises:
            ValueError: If no scale has a weight.
        """
        weights = [self.scale_weights.get(scale, 1.0) for scale in scales]
        if not any(weights):
            raise ValueError(f"scale_weights {self.scale_weights}: leave no scale to train")
        return [weight / sum(weights) for weight in weights]
