"""How much a small change of an activation changes the output of a graph, to first order.

Let g be the gradient, at an activation, of the output multiplied by random ±1. For a small change
d, E[(g·d)²] is the squared change of the output, summed over all pixels and channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from export.execution import Interpreter
from export.graph import Graph


def sensitivities(
    graph: Graph, pictures: Iterable[Tensor]
) -> Iterator[Mapping[str, tuple[Tensor, Tensor]]]:
    """Yield, for each picture, every activation and its gradient by the activation's name.

    Each mapping is emptied before the next picture is run, because it takes much memory.

    Args:
        graph: Any graph.
        pictures: 1 × 3 × H × W in [0, 1]. Each gets random signs of its own, with a fixed seed.
    """
    signs = torch.Generator().manual_seed(0)
    for picture in pictures:
        run = _Differentiable(graph)
        output = run(picture.clone())
        weights = torch.randint(0, 2, output.shape, generator=signs) * 2 - 1
        # Parts of a Split that nothing reads do not count.
        gradients = torch.autograd.grad(
            (output * weights).sum(), list(run.seen.values()), materialize_grads=True
        )
        found = {
            name: (value.detach(), gradient)
            for (name, value), gradient in zip(run.seen.items(), gradients, strict=True)
        }
        del run, output, gradients
        yield found
        found.clear()


class _Differentiable(Interpreter):
    """Keeps every activation, as a tensor that has a gradient."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.seen: dict[str, Tensor] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        self.seen[name] = value.requires_grad_()
        return value

    before_relu = activation


def effect_of_noise(graph: Graph, pictures: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return how much white noise of variance 1 on a channel changes the output, to first order.

    Zeros stay as they are: rounding changes none of the many that a Relu makes.

    Returns:
        By the name of the activation, for each of its channels, the expected squared change of the
        output, summed over all pixels and channels.
    """
    effect: dict[str, Tensor] = {}
    for seen in sensitivities(graph, pictures):
        for name, (value, gradient) in seen.items():
            rounded = gradient.square() * (value != 0)
            effect[name] = effect.get(name, 0) + rounded.sum((0, 2, 3))
    return effect
