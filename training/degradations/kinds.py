"""The list of degradations, and what several in a row do; a new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from training.configuration import by_kind, one_of
from training.data.pictures import Picture
from training.degradations.bicubic import Bicubic
from training.degradations.degradation import Degradation, DegradationStep, Degraded
from training.degradations.jpeg import Jpeg
from training.degradations.noise import Noise
from training.degradations.shdd import Shdd

DEGRADATION_STEPS = by_kind(
    Bicubic,
    Jpeg,
    Noise,
    Shdd,
)
"""The steps of a degradation that a recipe can name, by kind."""

if TYPE_CHECKING:
    AnyDegradationStep: TypeAlias = DegradationStep
else:
    AnyDegradationStep = one_of(DEGRADATION_STEPS)


def in_a_row(steps: Sequence[DegradationStep]) -> Degradation:
    """Return the degradation that takes all steps, one after another.

    Args:
        steps: One or more.

    Raises:
        ValueError: If several steps reduce pictures.
    """
    parts = [step.degradation() for step in steps]
    if len(parts) == 1:
        return parts[0]
    reducing = [part.name for part in parts if part.reduces]
    if len(reducing) > 1:
        raise ValueError(f"only one step may reduce pictures (found {', '.join(reducing)})")

    def degrade(picture: Picture, scale: int, random: np.random.Generator) -> Degraded:
        for part in parts:
            picture = part.degrade(picture, scale if part.reduces else 1, random).pixels
        return Degraded(picture)

    return Degradation(
        "+".join(part.name for part in parts),
        degrade,
        reduces=bool(reducing),
        versions=max(part.versions for part in parts),
    )
