"""Full ranges or those of least squares: whichever hurts the restored picture less.

Rounding errors of many values cancel on their way to the output. Clipping errors do not: bright
pixels are clipped in all channels at once. Least squares cannot tell one from the other, so that
it is right about some activations and far off about others; what the output loses tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from export.execution import execute
from export.graph import Graph
from export.scales import Quantization
from quantize.sensitivity import effect_of_noise
from quantize.simulator import rounded

_PICTURES = 16
_SIDE = 64
_WORTH_MEASURING = 0.01  # of the noise that rounding all activations makes

Quantizations = Mapping[str, Quantization]


def less_harmful_ranges(
    graph: Graph,
    classes: Sequence[Sequence[str]],
    full: Quantizations,
    narrow: Quantizations,
    images: Sequence[Tensor],
) -> dict[str, Quantization]:
    """Choose between two quantizations of every activation.

    Args:
        graph: Lowered for int8.
        classes: Activations that share a scale, together, by their names in the captured graph.
        full: The quantization of each activation that clips nothing.
        narrow: Another, finer one. It is chosen where the output, with nothing but this class
            rounded, differs less from that of the float network.
        images: Pictures, 1 × 3 × H × W in [0, 1], to measure that on.
    """
    pictures = [image[:, :, :_SIDE, :_SIDE] for image in images[:_PICTURES]]
    effect: dict[str, float] = defaultdict(float)
    for name, by_channel in effect_of_noise(graph, pictures).items():
        effect[graph.origin(name)] += float(by_channel.sum())
    noise = [
        sum(effect[name] * full[name].scale ** 2 / 12 for name in members) for members in classes
    ]
    least = _WORTH_MEASURING * sum(noise)
    chosen = dict(full)
    with torch.inference_mode():
        outputs = [execute(graph, picture).clamp(0, 1) for picture in pictures]

        def error(members: Iterable[str], choice: Quantizations) -> float:
            """Return the squared difference that rounding the members alone makes."""
            own = {name: choice[name] for name in members}

            def hook(name: str, value: Tensor) -> Tensor:
                chosen = own.get(graph.origin(name))
                return value if chosen is None else rounded(value, chosen)

            found = (execute(graph, picture, hook=hook).clamp(0, 1) for picture in pictures)
            differences = (one - other for one, other in zip(found, outputs, strict=True))
            return sum(float(one.square().sum()) for one in differences)

        for members, share in zip(classes, noise, strict=True):
            if share >= least and error(members, narrow) < error(members, full):
                chosen.update((name, narrow[name]) for name in members)
    return chosen
