"""Ranges wide enough for saturated colours.

Photographs hardly ever hold saturated colours, which drive activations farther than any photograph
does: a range chosen on photographs clips them, in whole areas and in one direction. A range that
holds everything is two to eight times as wide, and coarser by as much. Here each range is narrowed
from there as far as clipping it shifts no saturated area and no saturated edge by more than a few
levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.colours import range_parts, range_pictures
from export.execution import Interpreter, execute
from export.graph import Graph
from quantize.observers import Range
from training.data.pictures import Picture

_WORTH_SEARCHING = 0.002  # share of the noise that rounding all activations to full ranges makes
_STEPS = 16
_SIDE, _MARGIN = 12, 4
"""Side of a flat part, and of its edge that does not count, in pixels."""
_SENSE = (-1.0, 2.0)
"""Values beyond these are no overshoot any more: the network cannot restore such a picture."""
_LIMITS = {"tones": 1.5, "chequers": 10.0, "gradients": 4.0, "text": 60.0}
"""Levels that clipping may shift a picture, of tones the middle of flat areas."""
_LARGE, _SEARCHES = 1e11, 12
"""Of networks that take this many multiply-accumulates to restore all pictures, activations of
similar noise are narrowed together, in at most this many groups."""


def restorable_pictures(graph: Graph) -> dict[str, list[Picture]]:
    """Return the saturated pictures that a float network restores, by what they show.

    Some networks return values hundreds of times beyond white where saturated tones meet, from
    activations as far beyond those of photographs. Ranges wide enough for these would leave a few
    of the 256 steps to photographs. Of a picture that a network cannot restore those parts
    stay that it can.
    """
    parts = range_parts()
    return {
        name: _restorable(graph, [whole]) or _restorable(graph, parts[name])
        for name, whole in range_pictures().items()
    }


def _restorable(graph: Graph, pictures: Sequence[Picture]) -> list[Picture]:
    def restored(picture: Picture) -> bool:
        low, high = execute(graph, _as_images(graph.sides.reflected(picture)[None])).aminmax()
        return _SENSE[0] <= float(low) and float(high) <= _SENSE[1]

    with torch.inference_mode():
        return list(filter(restored, pictures))


def colour_safe_ranges(
    graph: Graph,
    narrow: Mapping[str, Range],
    full: Mapping[str, Range],
    effect: Mapping[str, float],
    outputs: int,
) -> dict[str, Range]:
    """Narrow the range of each activation from the full one, as far as saturated colours allow.

    Args:
        graph: Lowered for int8.
        narrow: The range of each activation that suits photographs, by its name in the captured
            graph.
        full: The range that clips nothing, of photographs and of saturated colours.
        effect: How much white noise of variance 1 changes the output, by activation. Ranges whose
            rounding hardly matters stay full.
        outputs: The number of values of the output that ``effect`` is summed over.

    Returns:
        For each activation one of seventeen ranges from ``narrow`` to ``full``.
    """
    noise = {name: effect.get(name, 0.0) * (high - low) ** 2 for name, (low, high) in full.items()}
    least = _WORTH_SEARCHING * sum(noise.values())
    # Where rounding alone is off by more than a level, a finer scale is worth a wider shift.
    slack = max(1.0, math.sqrt(sum(noise.values()) / 12 / outputs))
    searched = sorted(
        (name for name in narrow if noise[name] > least and narrow[name] != full[name]),
        key=lambda name: -noise[name],
    )
    shown, clipped = _Shown(graph), dict[str, Range]()
    together = 1 if shown.multadds < _LARGE else math.ceil(len(searched) / _SEARCHES)
    groups = [searched[first : first + together] for first in range(0, len(searched), together)]
    for rank, names in enumerate(groups, 1):
        # The first takes half of what all may shift together, the second half of the rest, ...
        share = 1 - 0.5**rank
        below, enough = -1, _STEPS
        while enough - below > 1:
            step = (below + enough) // 2
            tried = {name: _between(narrow[name], full[name], step) for name in names}
            if shown.are_right(clipped | tried, slack * share):
                enough = step
            else:
                below = step
        clipped |= {name: _between(narrow[name], full[name], enough) for name in names}
    return {**full, **clipped}


def _between(narrow: Range, full: Range, step: int) -> Range:
    low, high = (
        one + (other - one) * step / _STEPS for one, other in zip(narrow, full, strict=True)
    )
    return low, high


class _Shown:
    """Saturated pictures and what the float network makes of them.

    Attributes:
        multadds: Multiply-accumulates of restoring all of them.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        areas = _restorable(graph, range_parts()["tones"])
        pictures = restorable_pictures(graph) | {"tones": areas}
        shown = {name: np.stack(group) for name, group in pictures.items() if group}
        # Mirrored as well, so that tones cross in both ways.
        if "chequers" in shown:
            shown["chequers"] = np.concatenate([shown["chequers"], shown["chequers"][:, :, ::-1]])
        self._images = {
            name: _as_images(np.stack([*map(graph.sides.reflected, one)]))
            for name, one in shown.items()
        }
        self._order = list(self._images)
        pixels = sum(one[:, 0].numel() for one in self._images.values())
        side = 1000 * graph.scale
        self.multadds = graph.multadds(side, side) / 1000**2 * pixels
        with torch.inference_mode():
            self._outputs = {
                name: execute(graph, one).clamp(0, 1) for name, one in self._images.items()
            }

    def are_right(self, clipped: Mapping[str, Range], share: float) -> bool:
        """Tell whether clipping activations shifts all by at most a share of the limits."""
        run = _Clipping(self._graph, clipped)
        with torch.inference_mode():
            for name in self._order:
                if not float(self._shift(name, run(self._images[name])).max()) <= (
                    share * _LIMITS[name]
                ):
                    # What shifts too far once is likely to do so again, and is looked at first.
                    self._order.sort(key=lambda other: other != name)
                    return False
        return True

    def _shift(self, name: str, restored: Tensor) -> Tensor:
        shift = 255 * (restored.clamp(0, 1) - self._outputs[name]).abs()
        if name != "tones":
            return shift
        margin = _MARGIN * shift.shape[-1] // _SIDE
        return shift[:, :, margin:-margin, margin:-margin]


def _as_images(pictures: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255)


class _Clipping(Interpreter):
    """Clips activations, by their names in the captured graph."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range]) -> None:
        super().__init__(graph)
        self._ranges = ranges

    def activation(self, name: str, value: Tensor) -> Tensor:
        kept = self._ranges.get(self.graph.origin(name))
        return value if kept is None else value.clamp(*kept)
