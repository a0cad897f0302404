"""The choice between full and least-squares ranges by the error of the restored picture.

Rounding errors of many values cancel on their way to the output. Clipping errors do not: bright
pixels are clipped in all channels at once. Least squares weighs both kinds of error alike, so that
its ranges are good for some activations and bad for others; the output's error tells which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from export.execution import Interpreter, execute
from export.graph import Graph
from export.scales import Quantization
from quantize.calibration import small_crops
from quantize.sensitivity import effect_of_noise
from quantize.simulator import rounded

_WORTH_MEASURING = 0.01  # share of the noise that rounding all activations makes

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
        classes: Groups of activations that share a scale, by their names in the captured graph.
        full: For each activation, the quantization that clips nothing.
        narrow: For each activation, a finer quantization that clips. A class gets it if the output
            differs less from the float network's when only this class is rounded.
        images: Pictures for the comparison, 1 × 3 × H × W in [0, 1].

    Returns:
        The chosen quantization of each activation, by its name in the captured graph.
    """
    pictures = small_crops(images, graph.sides)
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
            """Return the squared error of the output with only the members rounded."""
            run = _Rounding(graph, {name: choice[name] for name in members})
            found = (run(picture).clamp(0, 1) for picture in pictures)
            differences = (one - other for one, other in zip(found, outputs, strict=True))
            return sum(float(one.square().sum()) for one in differences)

        for members, share in zip(classes, noise, strict=True):
            if share >= least and error(members, narrow) < error(members, full):
                chosen.update((name, narrow[name]) for name in members)
    return chosen


class _Rounding(Interpreter):
    """Rounds some activations, chosen by their names in the captured graph, and nothing else."""

    def __init__(self, graph: Graph, quantizations: Quantizations) -> None:
        super().__init__(graph)
        self._quantizations = quantizations

    def activation(self, name: str, value: Tensor) -> Tensor:
        chosen = self._quantizations.get(self.graph.origin(name))
        return value if chosen is None else rounded(value, chosen)
