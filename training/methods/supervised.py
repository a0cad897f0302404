"""Supervised teaching: restored patches are compared with their originals."""

from __future__ import annotations

from typing import Literal

import torch

from training.methods.method import Method


class Supervised(Method):
    """A network is taught by originals, at one scale after another or at all at once."""

    kind: Literal["supervised"] = "supervised"

    def opponent(self, device: torch.device) -> None:
        """Return None: the losses alone teach."""
        return
