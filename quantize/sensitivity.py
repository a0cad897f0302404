"""How much the output of a graph minds what happens to its activations, to first order.

The gradient of the output weighed by random signs, times a change of an activation, has what this
change adds to the output, as the sum of squares over all pixels, as its expected square.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from export.execution import execute
from export.graph import Graph


def sensitivities(
    graph: Graph, pictures: Iterable[Tensor]
) -> Iterator[Mapping[str, tuple[Tensor, Tensor]]]:
    """Yield every activation and its gradient by name, picture by picture.

    Args:
        graph: Any graph.
        pictures: 1 × 3 × H × W in [0, 1]. Each gets its own signs, always the same.
    """
    signs = torch.Generator().manual_seed(0)
    for picture in pictures:
        seen: dict[str, Tensor] = {}

        def remember(name: str, value: Tensor, seen: dict[str, Tensor] = seen) -> Tensor:
            seen[name] = value.requires_grad_()
            return value

        output = execute(graph, picture.clone(), hook=remember, before_relu=remember)
        weights = torch.randint(0, 2, output.shape, generator=signs) * 2 - 1
        gradients = torch.autograd.grad((output * weights).sum(), list(seen.values()))
        yield {
            name: (value.detach(), gradient)
            for (name, value), gradient in zip(seen.items(), gradients, strict=True)
        }


def effect_of_noise(graph: Graph, pictures: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return what white noise of variance 1 on each channel of each activation adds to the output.

    To first order, as the sum of squares over all pixels.
    """
    effect: dict[str, Tensor] = {}
    for seen in sensitivities(graph, pictures):
        for name, (_, gradient) in seen.items():
            effect[name] = effect.get(name, 0) + gradient.square().sum((0, 2, 3))
    return effect
