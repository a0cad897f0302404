"""What every network that enters the line brings, and the network loaded and captured once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from export.capture.torch_capture import capture
from export.graph import Graph
from training.tasks import Task


class Trained(Protocol):
    """A trained network, whoever trained it: one that ships with reslite, or a file."""

    @property
    def name(self) -> str:
        """Name of the network, of which the names of its files are made."""

    @property
    def path(self) -> Path:
        """The file of the weights."""

    @property
    def sha256(self) -> str:
        """SHA-256 of that file."""

    @property
    def architecture(self) -> str:
        """The kind of network, for people to read."""

    @property
    def task(self) -> Task:
        """What the network undoes, and how it is scored."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is known of the training, for the manifest."""

    def chosen_scale(self, scale: int | None) -> int:
        """Return ``scale``, or the network's only scale if None.

        Raises:
            UserError: If the network has no such scale, or several to choose from.
        """

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network for one scale, in evaluation mode."""


@dataclass(frozen=True)
class Source:
    """A network at one scale, captured once and ready to export.

    Attributes:
        model: The weights and what is known of them.
        scale: Upscaling factor.
        module: The torch module the files are compared with.
        graph: The captured graph.
    """

    model: Trained
    scale: int
    module: nn.Module
    graph: Graph

    @classmethod
    def of(cls, model: Trained, scale: int) -> Source:
        """Load and capture a model at one scale."""
        module = model.at_scale(scale)
        return cls(model, scale, module, capture(module))
