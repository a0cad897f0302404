"""What discriminators descend, and what the network descends against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

FormName: TypeAlias = Literal["cross-entropy", "least-squares", "relativistic"]


@dataclass(frozen=True)
class Form:
    """A form of the game, on logits of originals and of restored patches.

    Attributes:
        discriminator: What a discriminator descends: of originals, of restored patches.
        network: What the network descends, of both; originals are None unless ``compares``.
        compares: The network's loss depends on originals, too.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    network: Callable[[Tensor | None, Tensor], Tensor]
    compares: bool = False


def _entropy(logits: Tensor, original: bool) -> Tensor:
    """Return the mean cross-entropy of logits of pictures that are originals, or are not."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(original)))


def _relative(ours: Tensor, others: Tensor) -> Tensor:
    """Return how much more like an original some patches look than others do on average."""
    return ours - others.mean()


def _relativistic(original: Tensor | None, restored: Tensor) -> Tensor:
    """Return the network's loss: that of the discriminator with the two exchanged."""
    assert original is not None
    return _relativistic_discriminator(restored, original)


def _relativistic_discriminator(original: Tensor, restored: Tensor) -> Tensor:
    return _entropy(_relative(original, restored), True) + _entropy(
        _relative(restored, original), False
    )


FORMS: Mapping[FormName, Form] = {
    "cross-entropy": Form(
        lambda original, restored: _entropy(original, True) + _entropy(restored, False),
        lambda _, restored: _entropy(restored, True),
    ),
    "least-squares": Form(
        lambda original, restored: (original - 1).square().mean() + restored.square().mean(),
        lambda _, restored: (restored - 1).square().mean(),
    ),
    "relativistic": Form(_relativistic_discriminator, _relativistic, compares=True),
}
"""Goodfellow et al., 2014, with the loss that does not saturate; Mao et al., "Least Squares
Generative Adversarial Networks", ICCV 2017; Jolicoeur-Martineau, "The relativistic discriminator",
ICLR 2019, on averages, as in ESRGAN."""
