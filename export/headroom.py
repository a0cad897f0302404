"""What half arithmetic makes of a network: how far it is from overflow, and from the network.

float16 reaches 65,504. Where an activation comes near, powers of two that cancel out
(``export.rewrites.gains``) bring it down; the networks that ship with reslite need none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.colours import repeated
from export.execution import Interpreter, execute
from export.graph import Graph
from export.half import LARGEST_HALF, HalfInterpreter, halved
from export.lowered import Lowered
from export.lowering import lower
from export.operators import CONVOLUTIONS
from export.parity import parity_pictures
from export.profiles import FLOAT_FORM
from export.rewrites.gain_groups import connected, gain_groups
from export.rewrites.gains import with_gains
from export.rewrites.pooling import cut_at_pooling
from runtime.manifest import HalfPrecision

Photographs = Callable[[], Sequence[NDArray[np.float32]]]
"""Returns pictures beside those in saturated colours, H × W × 3 in [0, 1]; asked at most once for
each form of a network."""

_ENOUGH = 8.0
"""Headroom of which nothing is changed."""
_MOST = 256.0
"""Headroom that a change may make."""
_LEAST_HEADROOM, _LEAST_PSNR = 2.0, 50.0
"""What is worth a warning."""

_MULTADDS, _HALF_MULTADDS = 2e10, 2e9
"""Multiply-accumulates of one pass over the pictures, in float32 and with sums in float16: about a
second each."""
_SIDES = (8, 48)
"""Least and greatest side of the pictures that sums in float16 are simulated on, in pixels."""
_CLOSEST = 100.0
"""dB; what differs less counts as this."""


class InHalf:
    """What half arithmetic makes of a network, found when it is first asked for.

    Args:
        graph: The network as captured.
        photographs: The photographs for ``executed_in_half``.
    """

    def __init__(self, graph: Graph, photographs: Photographs = tuple) -> None:
        self._graph = graph
        self._photographs = photographs
        self._executed: dict[tuple[str, ...], HalfPrecision] = {}

    @cached_property
    def gains(self) -> Mapping[str, float]:
        """See ``float16_gains``."""
        return float16_gains(self._graph)

    def executed(self, lowered: Lowered) -> HalfPrecision:
        """Return ``executed_in_half`` of the lowered network; equal rewrites share the result."""
        rewrites = tuple(name for name in lowered.rewrites if name != cut_at_pooling.__name__)
        if rewrites not in self._executed:
            self._executed[rewrites] = executed_in_half(lowered.whole, self._photographs())
        return self._executed[rewrites]


def float16_gains(graph: Graph) -> dict[str, float]:
    """Return the factors that keep activations far from overflow; 1 is left out.

    They follow from the network alone, so that equal networks make equal files: activations are
    looked at in saturated colours, which drive them farther than photographs.

    Args:
        graph: The network as captured.

    Returns:
        Powers of two by the activation's name in the captured graph, for ``with_gains`` after the
        rewrites of ``FLOAT_FORM``. Empty if all activations have a headroom of 8 or more. Others
        are brought to a headroom between 8 and 256, at which kernels lose least in float16.
    """
    form = lower(graph, FLOAT_FORM)
    reach, _ = _reached(form, _thinned(form, _extremes(), _MULTADDS))
    gains: dict[str, float] = {}
    for members in _groups(form)[1:]:
        farthest = max(reach[name] for name in members)
        if not LARGEST_HALF / _ENOUGH < farthest < math.inf:
            continue
        largest = 2.0 ** -math.ceil(math.log2(farthest * _ENOUGH / LARGEST_HALF))
        candidates = (
            gains | dict.fromkeys(map(form.origin, members), largest / 2**halvings)
            for halvings in range(int(math.log2(_MOST / _ENOUGH)))
        )
        gains = min(candidates, key=lambda chosen: _rounding(with_gains(form, chosen)))
    return gains


def executed_in_half(
    graph: Graph, photographs: Sequence[NDArray[np.float32]] = ()
) -> HalfPrecision:
    """Run a graph in half arithmetic on photographs and saturated colours.

    Sums in float16 are simulated slowly: for them every n-th pixel of each picture is taken, so
    that colours stay and the time is a second or two.

    Args:
        graph: Lowered for a float file.
        photographs: Natural pictures, H × W × 3 in [0, 1].
    """
    pictures = [*_extremes(), *photographs]
    images = _thinned(graph, pictures, _MULTADDS)
    reach, restored = _reached(graph, images)
    wide = HalfInterpreter(graph, "float32")
    narrow = HalfInterpreter(graph, "float16")
    small = _small(graph, pictures)
    with torch.inference_mode():
        in_wide = min(map(_psnr, map(wide, images), restored))
        in_half = min(map(_psnr, narrow(small), execute(graph, small)))
    for name, largest in narrow.largest_sums.items():
        reach[name] = max(reach[name], largest)
    farthest = max(reach, key=lambda name: reach[name])
    layer = graph.producer(farthest)
    largest = min(reach[farthest], float(np.finfo(np.float32).max))  # finite, for JSON
    return HalfPrecision(
        largest=largest,
        headroom=LARGEST_HALF / largest,
        layer=graph.input if layer is None else layer.name,
        psnr_in_half=in_half,
        psnr_with_float32_sums=in_wide,
        pictures=len(pictures),
    )


def warning_of(file: str, found: HalfPrecision) -> str | None:
    """Return a line that warns of what half arithmetic makes of a file; None if all is well."""
    psnr = f"{found.psnr_in_half:.1f} dB from the network with sums in float16"
    if found.headroom < _LEAST_HEADROOM:
        return (
            f"{file}: '{found.layer}' reaches {found.largest:,.0f}, float16 ends at "
            f"{LARGEST_HALF:,.0f} ({psnr}); ship float32 or int8 for GPUs and NPUs"
        )
    if found.psnr_in_half < _LEAST_PSNR:
        return (
            f"{file}: {psnr}, {found.psnr_with_float32_sums:.1f} dB with sums in float32; the "
            f"largest are in '{found.layer}'. Compare pictures on GPUs and NPUs, or ship float32"
        )
    return None


def _groups(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return ``gain_groups``, joined where members stand for one captured activation."""
    groups = gain_groups(graph)
    ties = [(members[0], value) for members in groups for value in members]
    first: dict[str, str] = {}
    ties += [(first.setdefault(graph.origin(value), value), value) for _, value in ties]
    return connected([value for members in groups for value in members], ties)


class _Reach(Interpreter):
    """Records the largest magnitude of each activation of all runs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.found: dict[str, float] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        largest = float(value.abs().max().nan_to_num(math.inf, math.inf))
        self.found[name] = max(self.found.get(name, 0.0), largest)
        return value

    def before_relu(self, name: str, value: Tensor) -> Tensor:
        return self.activation(name, value)


def _reached(graph: Graph, images: Sequence[Tensor]) -> tuple[dict[str, float], list[Tensor]]:
    """Return the largest magnitude of every activation in float32, and the restored pictures."""
    run = _Reach(graph)
    with torch.inference_mode():
        restored = [run(image) for image in images]
    return run.found, restored


def _extremes() -> list[NDArray[np.float32]]:
    return [one for one in parity_pictures() if min(one.shape[:2]) >= _SIDES[0]]


def _thinned(
    graph: Graph, pictures: Sequence[NDArray[np.float32]], multadds: float
) -> list[Tensor]:
    """Return every n-th pixel of pictures, with the least n at which a pass takes ``multadds``."""
    pixels = sum(one.shape[0] * one.shape[1] for one in pictures)
    step = max(1, math.ceil(math.sqrt(pixels * _multadds_of_a_pixel(graph) / multadds)))
    return [_as_image(graph.sides.reflected(one[::step, ::step])) for one in pictures]


def _small(graph: Graph, pictures: Sequence[NDArray[np.float32]]) -> Tensor:
    """Return every n-th pixel of each picture, repeated to equal squares."""
    pixels = _HALF_MULTADDS / _multadds_of_a_pixel(graph) / len(pictures)
    side = graph.sides.fitting(int(np.clip(math.isqrt(int(pixels)), *_SIDES)))
    steps = [math.ceil(max(one.shape[:2]) / side) for one in pictures]
    every = [one[::step, ::step] for one, step in zip(pictures, steps, strict=True)]
    return torch.cat([_as_image(repeated(one, side, side)) for one in every])


def _multadds_of_a_pixel(graph: Graph) -> float:
    side = 1000 * graph.scale
    return max(1.0, graph.multadds(side, side) / 1000**2)


def _as_image(picture: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())


def _psnr(restored: Tensor, expected: Tensor) -> float:
    """Return the PSNR of a restored picture, in which NaN is black."""
    shown = restored.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    error = float((shown - expected.clamp(0, 1)).double().square().mean())
    return min(_CLOSEST, -10 * math.log10(error)) if error else _CLOSEST


def _rounding(graph: Graph) -> float:
    """Return what rounding to float16 changes in kernels, in shares of their squares."""
    lost = 0.0
    for node in graph.nodes:
        if node.op in CONVOLUTIONS and graph.is_constant(node.inputs[1]):
            kernel = torch.from_numpy(graph.constants[node.inputs[1]])
            whole = float(kernel.double().square().sum())
            off = float((halved(kernel) - kernel).double().square().sum())
            lost += off / whole if whole else 0.0
    return lost
