"""By which powers of two to multiply the channels of an activation, so that all reach as far.

An activation has one scale, that of the channel which reaches farthest. In the first layers of
``mepsnet-s`` four or five channels of 64 carry the picture, at an eighth to a third of the range.
Multiplied to the reach of the farthest they are rounded as much more finely, and the kernels that
read them are divided (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.1; there weights share a scale, too). That can make those kernels
uneven, and their weights coarser, so that it is for activations whose rounding shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.execution import execute
from export.graph import Graph
from export.operators import Trait, operators_with
from quantize.gain_choice import gain_groups
from quantize.sensitivity import effect_of_noise

_PICTURES = 16
_SIDE = 64
_WORTH_EQUALIZING = 0.1  # of the noise that rounding all activations makes
_MOST = 4
"""The greatest exponent: channels that hardly reach anywhere say hardly anything."""
_CHANNELWISE = operators_with(Trait.PER_CHANNEL, Trait.HOMOGENEOUS) | {"Conv"}


def channel_gains(graph: Graph, images: Sequence[Tensor]) -> dict[str, tuple[float, ...]]:
    """Return a factor for each channel of the activations whose rounding shows most.

    Args:
        graph: Lowered for int8.
        images: Pictures, 1 × 3 × H × W in [0, 1], float64.

    Returns:
        The factors by the name of the activation in the captured graph.
    """
    effects = effect_of_noise(graph, [one[:, :, :_SIDE, :_SIDE] for one in images[:_PICTURES]])
    reaches = _reaches(graph, images)
    noise = {name: effects[name].sum() * reach.max() ** 2 for name, reach in reaches.items()}
    least = _WORTH_EQUALIZING * sum(noise.values())
    shown = {
        value: members
        for members in gain_groups(graph)[1:]
        if _is_between_convolutions(graph, members)
        for value in members
        if noise.get(value, 0.0) > least
    }
    gains = {value: factors(reaches[value], effects[value]) for value in shown}
    return {graph.origin(value): gains[one] for one, members in shown.items() for value in members}


def factors(reach: Tensor, effect: Tensor) -> tuple[float, ...]:
    """Choose powers of two that bring all channels within an octave of one another.

    Where that octave begins, the channels decide whose rounding shows.

    Args:
        reach: The greatest magnitude in each channel.
        effect: What noise of variance 1 on each channel adds to the output.
    """
    alive = reach > 0

    def brought_to(most: float) -> Tensor:
        exponents = (most / reach).log2().floor().clamp(-_MOST, _MOST)
        return torch.where(alive, 2.0**exponents, 1.0)

    def noise(gains: Tensor) -> float:
        return float((effect / gains**2).sum() * (gains * reach).max() ** 2)

    farthest = float(reach.max())
    candidates = [brought_to(farthest * 2.0 ** (-eighth / 8)) for eighth in range(8)]
    return tuple(min(candidates, key=noise).tolist())


def _is_between_convolutions(graph: Graph, members: Sequence[str]) -> bool:
    producers = [graph.producer(value) for value in members]
    readers = [reader for value in members for reader in graph.consumers(value)]
    return all(node is not None and node.op in _CHANNELWISE for node in (*producers, *readers))


def _reaches(graph: Graph, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the greatest magnitude in each channel of the activations that a file holds."""
    found: dict[str, Tensor] = {}

    def look(name: str, value: Tensor) -> Tensor:
        reach = value.abs().amax((0, 2, 3))
        found[name] = torch.maximum(found.get(name, reach), reach)
        return value

    with torch.inference_mode():
        for image in images:
            execute(graph, image, hook=look)
    return found
