"""The contract of losses: what a step of training descends."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from training.configuration import Entry


@dataclass(frozen=True)
class Patches:
    """Restored patches of one scale and what they are compared with.

    Attributes:
        restored: N × 3 × H × W, in [0, 1], not clamped.
        original: N × 3 × H × W, in [0, 1].
        untouched: N × H × W, true where the degradation left the pixel as it was; None where no
            loss of the recipe asks.
    """

    restored: Tensor
    original: Tensor
    untouched: Tensor | None = None


LossFunction: TypeAlias = Callable[[Patches], Tensor]


class Loss(Entry):
    """A loss of a recipe, listed in ``training.losses.kinds``."""

    weight: float = Field(default=1.0, gt=0, description="factor of the loss in the sum of all")

    @property
    def asks_what_was_untouched(self) -> bool:
        """Whether the loss reads ``Patches.untouched``."""
        return False

    @abstractmethod
    def build(self, device: torch.device) -> LossFunction:
        """Return the function that measures patches on ``device``: a scalar, without the weight.

        On CUDA the function is recorded once and replayed: it must not read values back.

        Raises:
            UserError: If something that the loss needs, such as a file of weights, is missing.
        """
