"""Where the range of an activation ends, and which channels go on beyond it.

Most channels hold more in saturated colours than on any photograph, by two to four times, and a
range for all of it is as much coarser. Below a lower limit everything is finer. What reaches beyond
it overflows into channels that are added (see ``export.rewrites.overflow``), which costs
operations, or is multiplied by a power of two, which makes it coarse again and the kernels behind
it uneven: their weights share a scale by output.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.execution import Interpreter
from export.graph import Graph, Node
from export.rewrites.overflow import Surroundings, surroundings
from export.scales import Overflow

_MOST_ADDED, _MOST_ADDED_AT = 0.05, {2: 0.2, 3: 0.1}
"""MultAdds that the channels added to one activation may cost, as a share of the network's, and the
share at small scales, where networks restore so well that the same noise costs two to four times as
many decibels."""
_WIDEST = 1.0
"""Channels that may be added, as a share of those of the activation."""
_WORTH_ADDING = 0.001
"""Noise that a channel must save to be added, as a share of that of rounding the activation."""
_OCTAVES = 4
"""How far below the full range limits are tried."""
_COUNTED_AT = 64, 64
"""Size of the picture, in pixels, that MultAdds are compared at."""
_SLACK = 1e-9  # divisions are not exact


@dataclass(frozen=True)
class Kernel:
    """A kernel that reads an activation.

    Attributes:
        magnitudes: The largest weight for each pair of channels, outputs × inputs of a group.
        groups: Number of groups.
        size: Number of weights for each pair of channels.
        effect: As ``effect_of_noise`` returns it for what the kernel makes.
    """

    magnitudes: Tensor
    groups: int
    size: int
    effect: Tensor

    def noise(self, gains: Tensor, variance: Tensor) -> float:
        """Return the noise that rounding the weights makes, once they are divided by ``gains``.

        It is in squared quanta of an activation whose range is 1, as in ``with_least_noise``.
        """
        by_group = gains.reshape(self.groups, 1, -1)
        rows = self.magnitudes.reshape(self.groups, -1, self.magnitudes.shape[1]) / by_group
        step = 255 / 127 * rows.amax(2)  # both 255 quanta of an activation and 127 of a weight
        made = step.square() * (variance * gains.square()).reshape(self.groups, -1).sum(1)[:, None]
        return float((made.flatten() * self.effect).sum() * self.size)


@dataclass(frozen=True)
class Around:
    """What a limit of an activation depends on.

    Attributes:
        variance: Of each channel on photographs, as kernels read it.
        blocks: The number of equal runs of channels to which equally many channels are added.
        most: The number of channels that may be added to each run.
        kernels: What reads the activation.
    """

    variance: Tensor
    blocks: int
    most: int
    kernels: tuple[Kernel, ...]


def overflowing(
    graph: Graph,
    names: Collection[str],
    effects: Mapping[str, Tensor],
    photographs: Sequence[Tensor],
) -> dict[str, Around]:
    """Return what is around the activations that may overflow, by name.

    Args:
        graph: Lowered for int8.
        names: Of the activations in question.
        effects: As ``quantize.sensitivity.effect_of_noise`` returns them.
        photographs: 1 × 3 × H × W in [0, 1], float64.
    """
    known = {name: one for name, one in surroundings(graph).items() if name in names}
    shown = _shown(graph, photographs, known)
    multadds = {node.output: count for node, count in graph.layer_multadds(*_COUNTED_AT)}
    return {
        name: Around(
            variance=shown[name].reshape(one.channels, -1).var(1, correction=0),
            blocks=one.blocks,
            most=_most_added(one, multadds, graph.scale),
            kernels=tuple(_kernel(graph, node, effects) for node in one.readers),
        )
        for name, one in known.items()
    }


def with_least_noise(
    reach: Tensor, effect: Tensor, around: Around
) -> tuple[tuple[float, ...], Overflow | None]:
    """Choose a limit with the least rounding noise at the output, and what holds values beyond it.

    Of the channels that reach beyond it those with the most effect overflow, others are multiplied
    by a power of two.

    Args:
        reach: The largest value of each channel, none negative.
        effect: As ``effect_of_noise`` returns it for the activation.
        around: What is around the activation.

    Returns:
        The factor of each channel, and the channels that overflow; None if none needs to.
    """
    blocks, size = around.blocks, len(reach) // around.blocks
    enough = _WORTH_ADDING * float(effect.sum())

    def below(limit: float) -> tuple[Tensor, list[list[int]]]:
        octaves = (reach / limit).clamp_min(1.0).log2().sub(_SLACK).ceil()
        gains = 2.0**-octaves
        times = (reach / limit - _SLACK).ceil().sub(1).clamp_min(0).long()
        worth = effect * (1 / gains**2 - 1) / times.clamp_min(1)
        added: list[list[int]] = [[] for _ in range(blocks)]
        for channel in worth.argsort(descending=True).tolist():
            block, count = added[channel // size], int(times[channel])
            if worth[channel] > enough and len(block) + count <= around.most:
                block += [channel] * count
                gains[channel] = 1.0
        return gains, added

    def noise(limit: float) -> float:
        gains, _ = below(limit)
        of_weights = sum(kernel.noise(gains, around.variance) for kernel in around.kernels)
        return limit**2 * float((effect / gains**2).sum()) + of_weights

    farthest = float(reach.max())
    if farthest == 0 or not effect.any():
        return (1.0,) * len(reach), None
    limits = [farthest * 2.0 ** (-eighth / 8) for eighth in range(8 * _OCTAVES)]
    limit = min(limits, key=noise)
    gains, added = below(limit)
    widest = max(map(len, added))
    if not widest:
        return tuple(gains.tolist()), None
    for block, channels in enumerate(added):
        # Groups are equally wide: what is added to fill one up stays zero.
        channels += [channels[0] if channels else block * size] * (widest - len(channels))
    return tuple(gains.tolist()), Overflow(limit, tuple(c for one in added for c in sorted(one)))


def _most_added(around: Surroundings, multadds: Mapping[str, int], scale: int) -> int:
    """Return how many channels may be added to each run of channels of an activation."""
    # What makes the activation and what reads it grow in the same proportion.
    made_and_read = sum(multadds[node.output] for node in (around.conv, *around.readers))
    most = _MOST_ADDED_AT.get(scale, _MOST_ADDED)
    share = min(_WIDEST, most * sum(multadds.values()) / made_and_read)
    return int(share * around.channels / around.blocks)


def _shown(graph: Graph, images: Sequence[Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return what the channels of some activations hold, channels × a quarter of all pixels."""
    run = _Kept(graph, names)
    with torch.inference_mode():
        for image in images:
            run(image)
    return {name: torch.cat(parts, dim=1) for name, parts in run.found.items()}


class _Kept(Interpreter):
    """Keeps a quarter of the pixels of some activations, of all runs."""

    def __init__(self, graph: Graph, names: Collection[str]) -> None:
        super().__init__(graph)
        self.found: dict[str, list[Tensor]] = {name: [] for name in names}

    def activation(self, name: str, value: Tensor) -> Tensor:
        if name in self.found:
            self.found[name].append(value[0, :, ::2, ::2].flatten(1))
        return value


def _kernel(graph: Graph, node: Node, effects: Mapping[str, Tensor]) -> Kernel:
    kernel = torch.from_numpy(graph.constants[node.inputs[1]]).double()
    magnitudes = kernel.abs().amax((2, 3))
    return Kernel(magnitudes, node.integer("groups"), kernel[0, 0].numel(), effects[node.output])
