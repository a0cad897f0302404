"""The list of losses; a new loss is a module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from training.configuration import by_kind, one_of
from training.losses.content import Content
from training.losses.distance import Distance
from training.losses.loss import Loss
from training.losses.ms_ssim import MsSsim
from training.losses.total_variation import TotalVariation

LOSSES = by_kind(
    Distance,
    MsSsim,
    Content,
    TotalVariation,
)
"""The losses that a recipe can name, by kind."""

if TYPE_CHECKING:
    AnyLoss: TypeAlias = Loss
else:
    AnyLoss = one_of(LOSSES)
