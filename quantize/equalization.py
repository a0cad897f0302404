"""Equalization: factors for the channels of an activation that reach farther than others.

All channels share one scale, set by the channel with the largest magnitude, so that channels of
small magnitude are rounded coarsely. In saturated colours a few channels reach much farther than
on any photograph. They are multiplied by a factor below 1, and the kernels that read them are
divided by it (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.1, where weights share one scale as well). The division makes
kernels uneven and their rounding coarser, so that as few channels as possible are multiplied, and
only of activations whose rounding has much effect on the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from export.execution import Interpreter
from export.graph import Graph
from export.operators import Trait, operators_with
from export.rewrites.gain_groups import gain_groups
from export.scales import Overflow
from quantize.overflow import overflowing, with_least_noise
from quantize.scale_classes import moved

_WORTH_EQUALIZING = 0.02  # share of the noise that rounding all activations makes
_MOST = 4
"""The largest exponent, because channels of tiny magnitude hardly matter to the output."""
_SLACK = 1e-9  # octaves; divisions are not exact
_NEAR = 1.2
"""Noise above the least one that is accepted for kernels that stay more even."""
_CHANNELWISE = operators_with(Trait.PER_CHANNEL, Trait.HOMOGENEOUS) | {
    "Add",
    "Concat",
    "Conv",
    "DepthToSpace",
}


def channel_gains(
    graph: Graph,
    effects: Mapping[str, Tensor],
    photographs: Sequence[Tensor],
    colours: Sequence[Tensor],
) -> tuple[dict[str, tuple[float, ...]], dict[str, Overflow]]:
    """Return a factor for each channel of the activations whose rounding matters most.

    Args:
        graph: Lowered for int8.
        effects: As ``quantize.sensitivity.effect_of_noise`` returns them.
        photographs: 1 × 3 × H × W in [0, 1], float64.
        colours: Pictures in saturated colours, alike.

    Returns:
        The factors, one per channel, and which channels overflow behind these factors, both by the
        name of the activation in the captured graph.
    """
    reaches = _reaches(graph, [*photographs, *colours])
    copies = moved(graph)
    noise = {
        name: float(effects[name].sum() * one.max() ** 2)
        for name, one in reaches.items()
        if graph.origin(name) not in copies  # which are not rounded again
    }
    least = _WORTH_EQUALIZING * sum(noise.values())

    def matters(members: Sequence[str]) -> bool:
        made = sum(noise.get(value, 0.0) for value in members)
        return made > least and _is_channelwise(graph, members)

    groups = [members for members in gain_groups(graph)[1:] if matters(members)]
    names = {value for members in groups for value in members}
    around = overflowing(graph, names, effects, photographs)
    gains, overflow = dict[str, tuple[float, ...]](), dict[str, Overflow]()
    for members in groups:
        held = [value for value in members if value in noise]
        # Several channels before a DepthToSpace become one, and must have its factor.
        channels = {value: graph.channels()[value] for value in members}
        count = min(channels.values())
        reach = torch.stack([reaches[one].reshape(count, -1).amax(1) for one in held]).amax(0)
        effect = torch.stack([effects[one].reshape(count, -1).sum(1) for one in held]).sum(0)
        limited = next((value for value in members if value in around), None)
        if limited is None:
            chosen = factors(reach, effect)
        else:
            chosen, beyond = with_least_noise(reach, effect, around[limited])
            if beyond is not None:
                overflow[graph.origin(limited)] = beyond
        if all(one == 1 for one in chosen):
            continue
        for value in members:
            times = channels[value] // count
            gains[graph.origin(value)] = tuple(one for one in chosen for _ in range(times))
    return gains, overflow


def factors(reach: Tensor, effect: Tensor) -> tuple[float, ...]:
    """Choose factors of at most 1 for the channels that reach farther than a limit.

    Of the limits the highest is taken whose rounding noise at the output is near the least.

    Args:
        reach: The largest magnitude in each channel.
        effect: As ``effect_of_noise`` returns it for the activation.
    """

    def within(limit: float) -> Tensor:
        return (limit / reach.clamp_min(_SLACK)).clamp(2.0**-_MOST, 1.0)

    def noise(gains: Tensor) -> float:
        return float((effect / gains**2).sum() * (gains * reach).max() ** 2)

    farthest = float(reach.max())
    candidates = [within(farthest * 2.0 ** (-eighth / 8)) for eighth in range(8 * _MOST)]
    enough = _NEAR * min(map(noise, candidates))
    return tuple(next(one for one in candidates if noise(one) <= enough).tolist())


def _is_channelwise(graph: Graph, members: Sequence[str]) -> bool:
    """Tell whether factors of channels may differ: all around is computed channel by channel."""
    producers = [graph.producer(value) for value in members]
    readers = [reader for value in members for reader in graph.consumers(value)]
    return all(
        node is not None
        and node.op in _CHANNELWISE
        and node.attributes.get("mode") in {None, "CRD"}  # neighbouring channels become one
        for node in (*producers, *readers)
    )


def _reaches(graph: Graph, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the largest magnitude in each channel of the activations that a file holds."""
    run = _Reaches(graph)
    with torch.inference_mode():
        for image in images:
            run(image)
    return run.found


class _Reaches(Interpreter):
    """Records the largest magnitude in each channel, over all runs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.found: dict[str, Tensor] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        reach = value.abs().amax((0, 2, 3))
        self.found[name] = torch.maximum(self.found.get(name, reach), reach)
        return value
