"""A network that does not come from reslite's own training: what every such source returns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from runtime.errors import UserError
from training.tasks import SHDD, SUPER_RESOLUTION, Task


@dataclass(frozen=True)
class Foreign:
    """A network that somebody else trained or wrote, built and tried on a picture.

    Attributes:
        name: Name of the network, of which the names of its files are made (``plain_name``).
        path: The file it comes from.
        sha256: What changes with anything the network computes: SHA-256 of the weights' file, or of
            the tensors and the code.
        architecture: The kind of network, for people to read.
        known: What the manifest says of it beside path, hash and architecture.
        modules: By upscaling factor the network in evaluation mode, from N × 3 × H × W pictures in
            [0, 1] to restored ones.
        colours: Channels of these pictures: 3; or 1 for luma, until ``in_plain_pictures`` makes
            them 3.
    """

    name: str
    path: Path
    sha256: str
    architecture: str
    known: Mapping[str, Any]
    modules: Mapping[int, nn.Module]
    colours: int = 3

    @property
    def task(self) -> Task:
        """Enlarging, or restoring at the same size: nothing else is known."""
        return SUPER_RESOLUTION if max(self.modules) > 1 else SHDD["moderate"]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the network comes from, its hash and its architecture."""
        known = {"architecture": self.architecture, **self.known}
        return {"source": {"file": self.path.name, "sha256": self.sha256, **known}}

    def chosen_scale(self, scale: int | None) -> int:
        """Return ``scale``, or the network's only scale if None.

        Raises:
            UserError: If the network has no such scale, or several to choose from.
        """
        known = ", ".join(map(str, self.modules))
        if scale is None and len(self.modules) > 1:
            raise UserError(f"{self.path}: name the upscaling factor with --scale: {known}")
        if scale is None:
            return next(iter(self.modules))
        if scale not in self.modules:
            several = "choose one of those" if len(self.modules) > 1 else "leave --scale out"
            raise UserError(f"{self.path}: restores ×{known}, not ×{scale}; {several}")
        return scale

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network for one scale."""
        return self.modules[self.chosen_scale(scale)]


def plain_name(name: str, scale: int | None = None) -> str:
    """Return a name in small letters and digits, without the scale at its end."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain.removesuffix(f"-x{scale}") or "network"
