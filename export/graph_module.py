"""A graph as a torch module: what files are compared with where no other module exists."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.execution import execute, tensors_of
from export.graph import Graph


class GraphModule(nn.Module):
    """Runs a graph on N × 3 × H × W pictures; its parameters are the graph's constants.

    Args:
        graph: Any graph, captured or lowered.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        tensors = (nn.Parameter(one, False) for one in tensors_of(graph).values())
        self.constants = nn.ParameterList(tensors)

    def forward(self, image: Tensor) -> Tensor:
        """Restore pictures, in the precision of the parameters."""
        constants = dict(zip(self.graph.constants, self.constants, strict=True))
        return execute(self.graph, image, constants)

    def __deepcopy__(self, memo: dict[int, object]) -> GraphModule:
        """Return a module whose parameters are its own; a graph is immutable and shared."""
        copied = GraphModule(self.graph).train(self.training)
        copied.load_state_dict(self.state_dict())
        first = next(self.parameters(), torch.zeros(()))
        return copied.to(first.dtype)
