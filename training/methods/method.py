"""The contract of methods: how a network is taught."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from runtime.errors import UserError
from training.configuration import Entry
from training.losses.loss import Patches


class Collapse(UserError):
    """A network and its opponents lost their balance, so that the steps since teach nothing.

    Args:
        step: The step at which it was found, from 1.
        found: What their loss does, for example ``is not finite``.
    """

    def __init__(self, step: int, found: str) -> None:
        super().__init__(
            f"step {step}: the discriminators have collapsed: their loss {found}; the last "
            "checkpoint is kept. Begin anew with a smaller method.learning_rate or method.weight"
        )


class Opponent(Protocol):
    """Networks that learn against the one that is taught.

    On CUDA their steps are recorded once and replayed: they must not read values back.
    """

    def learn(self, patches: Sequence[Patches]) -> None:
        """Take one optimizer step on restored patches of some scales and their originals."""
        ...

    def judge(self, patches: Patches) -> Tensor:
        """Return what the taught network has to make small: a scalar, with its weight."""
        ...

    def check(self, step: int) -> float:
        """Return the opponents' own mean loss of late.

        Raises:
            Collapse: If the two have lost their balance.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return all that a resumed run needs, by name."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors that ``state`` returned, among others."""
        ...


class Method(Entry):
    """A method of a recipe, listed in ``training.methods.kinds``."""

    scale_weights: dict[int, NonNegativeFloat] = Field(
        default_factory=dict, description="how often a scale is trained, in proportion; 1 if absent"
    )
    all_scales: bool = Field(
        default=False, description="each step takes patches of all scales, not of a random scale"
    )
    revive_at: tuple[NonNegativeInt, ...] = Field(
        default=(), description="steps before which dead channels are revived"
    )

    @abstractmethod
    def opponent(self, device: torch.device) -> Opponent | None:
        """Return freshly initialized opponents on ``device``; None if there are none."""

    def shares(self, scales: Sequence[int]) -> list[float]:
        """Return the part of all training that each scale gets; they add up to 1.

        Raises:
            ValueError: If no scale has a weight.
        """
        weights = [self.scale_weights.get(scale, 1.0) for scale in scales]
        if not any(weights):
            raise ValueError(f"scale_weights {self.scale_weights}: leave no scale to train")
        return [weight / sum(weights) for weight in weights]
