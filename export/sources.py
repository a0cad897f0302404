"""Networks to export: loaded and captured once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from export.capture import capture
from export.graph import Graph
from training.catalogue import Model


@dataclass(frozen=True)
class Source:
    """A network at one scale, captured once and ready to export.

    Attributes:
        model: The weights and their record.
        scale: Upscaling factor.
        module: The torch module the files are compared with.
        graph: The captured graph.
    """

    model: Model
    scale: int
    module: nn.Module
    graph: Graph

    @classmethod
    def of(cls, model: Model, scale: int) -> Source:
        """Load and capture a model at one scale."""
        module = model.at_scale(scale)
        return cls(model, scale, module, capture(module))
