"""Equalization: powers of two that give the channels of an activation similar magnitudes.

All channels share one scale, set by the channel with the largest magnitude, so that channels of
small magnitude are rounded coarsely. A channel multiplied by a power of two is rounded more finely,
and the kernels that read it are divided by the same factor (Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1, where weights share one
scale as well). The division makes kernels uneven and their rounding coarser, so that only
activations whose rounding has much effect on the output are equalized.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.execution import activations_of
from export.graph import Graph
from export.operators import Trait, operators_with
from quantize.calibration import small_crops
from quantize.gain_choice import gain_groups
from quantize.sensitivity import effect_of_noise

_WORTH_EQUALIZING = 0.1  # share of the noise that rounding all activations makes
_MOST = 4
"""The largest exponent, because channels of tiny magnitude hardly matter to the output."""
_CHANNELWISE = operators_with(Trait.PER_CHANNEL, Trait.HOMOGENEOUS) | {"Conv"}


def channel_gains(graph: Graph, images: Sequence[Tensor]) -> dict[str, tuple[float, ...]]:
    """Return a factor for each channel of the activations whose rounding matters most.

    Args:
        graph: Lowered for int8.
        images: Pictures, 1 × 3 × H × W in [0, 1], float64.

    Returns:
        The factors, one per channel, by the name of the activation in the captured graph.
    """
    effects = effect_of_noise(graph, small_crops(images))
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
    """Choose powers of two that bring the magnitudes of all channels within one octave.

    Of eight possible octaves the one with the least rounding noise at the output is taken.

    Args:
        reach: The largest magnitude in each channel.
        effect: As ``effect_of_noise`` returns it for the activation.
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
    """Return the largest magnitude in each channel of the activations that a file holds."""
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        for image in images:
            for name, value in activations_of(graph, image).items():
                reach = value.abs().amax((0, 2, 3))
                found[name] = torch.maximum(found.get(name, reach), reach)
    return found
