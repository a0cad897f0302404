"""Tuning: weights, biases and scales that are trained to give back the float network's pictures.

Networks that amplify rounding lose more than ranges and roundings can mend. Here the integers of
all kernels, the biases and the scales of activations are trained together through the rounding,
whose gradient is taken for that of the identity (Bengio et al. 2013; scales after Esser et al.,
"Learned Step Size Quantization", ICLR 2020). The target is the float network's own output, so that
no originals are needed, on photographs and on saturated colours. Float files keep the weights that
they have; the table of scales holds what the int8 files have in their place.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from export.execution import Interpreter, execute
from export.graph import Array, Graph
from export.integers import output_axis, quantized_weight, weight_scales
from export.lowering import int8_form
from export.rewrites.corrections import with_corrected_biases
from export.rewrites.requantization import with_requantization
from export.rewrites.roundings import as_text, in_quanta, kernel_forms
from export.scales import PIXELS, SIGMOID, Quantization, ScaleTable
from export.sources.source import Trained
from quantize.methods import TUNING_MINUTES
from quantize.simulator import CONVOLUTIONS, Simulator
from training.catalogue import Model

_WEIGHT_STEP, _SCALE_STEP = 0.03, 0.01
"""Learning rates with the most pictures: of weights and biases in quanta, of scales in shares of
themselves. With fewer pictures they are less in proportion (Goyal et al. 2017)."""
_WARM_UP = 10  # steps
_COLOURED = 1 / 4  # share of pictures in saturated colours
_STEP_MULTADDS = 5e9
_SIDE, _MOST_PICTURES = 32, 8
_FARTHEST = 100  # quanta that a weight may move
_FLOOR, _COLOURED_FLOOR = 1e-6, 5e-4
"""Squared errors, of 60 and 33 dB, below which photographs and saturated colours need no tuning.
Saturated colours are kept from harm; what goes on is spent on photographs."""


@dataclass(frozen=True)
class Limit:
    """When tuning ends: at whichever comes first.

    Attributes:
        minutes: Time.
        steps: Steps.
    """

    minutes: float
    steps: int = 100_000


def limit_for(network: Trained, minutes: float | None) -> Limit | None:
    """Return how long a network is tuned.

    Args:
        network: The network.
        minutes: 0 for not at all, None for the default: networks of others are tuned.

    Returns:
        None if it is not tuned.
    """
    if minutes is None:
        minutes = 0 if isinstance(network, Model) else TUNING_MINUTES
    return Limit(minutes) if minutes > 0 else None


def tuned(
    graph: Graph,
    table: ScaleTable,
    photographs: Sequence[Tensor],
    colours: Sequence[Tensor],
    limit: Limit,
    progress: bool = False,
) -> ScaleTable:
    """Train what int8 files hold of a network.

    Args:
        graph: The captured graph.
        table: The scales to start from, with ``corrections`` and without ``roundings``.
        photographs: 1 × 3 × H × W in [0, 1].
        colours: Pictures in saturated colours, alike.
        limit: When to stop.
        progress: Show a progress bar.

    Returns:
        The table with trained scales, roundings and corrections; the given one if training did not
        bring the pictures nearer to those of the float network.
    """
    photographs, colours = ([one.float() for one in few] for few in (photographs, colours))
    network = _Tuned(_whole_form(graph, table), table)
    count = _pictures(graph)
    batches = _batches(graph, photographs, colours, count)
    share = count / _MOST_PICTURES
    moved = [one.quanta for one in network.kernels.values()]
    moved += [one.quanta for one in network.shifts.values()]
    groups = [
        {"params": moved, "rate": _WEIGHT_STEP * share},
        {"params": [*network.widths.values()], "rate": _SCALE_STEP * share},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    start, steps, done = time.monotonic(), 0, 0.0
    with tqdm(desc="tuning", unit="step", disable=None if progress else True) as bar:
        while done < 1:
            warm = min(1.0, (steps + 1) / _WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * warm * (0.5 + 0.5 * math.cos(math.pi * done))
            optimizer.zero_grad()
            batch, floors = next(batches)
            torch.autograd.backward(_loss(network(batch), execute(graph, batch), floors))
            optimizer.step()
            steps += 1
            bar.update()
            passed = (time.monotonic() - start) / 60
            done = max(steps / limit.steps, passed / limit.minutes)
    found = dataclasses.replace(network.table(), method=f"{table.method}, tuned in {steps} steps")
    seen = [(one, _FLOOR) for one in photographs[:16]]
    seen += [(one, _COLOURED_FLOOR) for one in colours]
    with torch.inference_mode():
        shown = [(one, execute(graph, one), torch.tensor(floor)) for one, floor in seen]
    return min(table, found, key=lambda one: _error(graph, one, shown))


def _loss(restored: Tensor, wanted: Tensor, floors: Tensor) -> Tensor:
    """Return the mean logarithm of the pictures' squared errors, so that none outweighs all."""
    clipped = wanted.clamp(0, 1)
    # Nothing beyond black and white is seen.
    alike = ((restored > 1) & (wanted >= 1)) | ((restored < 0) & (wanted <= 0))
    error = torch.where(alike, 0.0, restored - clipped)
    loss: Tensor = (error.square().mean((1, 2, 3)) + floors).log().mean()
    return loss


def _error(
    graph: Graph, table: ScaleTable, shown: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> float:
    """Return the loss of a table on pictures, each with what is wanted of it and its floor."""
    simulator = Simulator(_whole_form(graph, table), table)
    with torch.inference_mode():
        errors = [float(_loss(simulator(one), wanted, floor)) for one, wanted, floor in shown]
    return float(np.mean(errors))


def _whole_form(graph: Graph, table: ScaleTable) -> Graph:
    """Return the graph that int8 files hold, but for rewrites that move integers."""
    return with_requantization(with_corrected_biases(int8_form(graph, table), table), table)


def _pictures(graph: Graph) -> int:
    """Return how many pictures a step shows."""
    side = graph.sides.fitting(_SIDE) * graph.scale
    return int(np.clip(_STEP_MULTADDS / max(graph.multadds(side, side), 1), 2, _MOST_PICTURES))


def _batches(
    graph: Graph, photographs: Sequence[Tensor], colours: Sequence[Tensor], count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random parts of the pictures, turned and their colours exchanged, and their floors."""
    random = np.random.default_rng(0)
    side = graph.sides.fitting(_SIDE)
    coloured = max(1, round(count * _COLOURED)) if colours else 0

    def part(pictures: Sequence[Tensor]) -> Tensor:
        picture = pictures[int(random.integers(len(pictures)))][0]
        _, height, width = picture.shape
        if min(height, width) < side:
            picture = picture.repeat(1, -(-side // height), -(-side // width))
        top, left = (int(random.integers(one - side + 1)) for one in picture.shape[1:])
        picture = picture[:, top : top + side, left : left + side]
        turned = picture.rot90(int(random.integers(4)), (1, 2))
        if random.random() < 0.5:
            turned = turned.flip(2)
        order = random.permutation(3) if random.random() < 0.5 else np.arange(3)
        return turned[torch.from_numpy(order)]

    floors = torch.tensor([_FLOOR] * (count - coloured) + [_COLOURED_FLOOR] * coloured)
    while True:
        shown = [part(photographs) for _ in range(count - coloured)]
        shown += [part(colours) for _ in range(coloured)]
        yield torch.stack(shown), floors


class _Rounded(torch.autograd.Function):
    """Rounds to 8 bits; gradients pass as if it did not, except where values are clipped."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        """Return the nearest multiples of ``scale`` from ``low`` to ``high`` times it."""
        quanta = value / scale
        integers = quanta.round().clamp_(low, high)
        ctx.save_for_backward(quanta, integers)
        ctx.ends = (low, high)
        return integers * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the value and of the scale."""
        quanta, integers = ctx.saved_tensors
        low, high = ctx.ends
        (gradient,) = gradients
        inside = gradient * ((quanta >= low - 0.5) & (quanta <= high + 0.5))
        return inside, (gradient * integers).sum() - (inside * quanta).sum(), None, None


@dataclass(frozen=True)
class _Kernel:
    """A kernel whose integers are trained.

    Attributes:
        quanta: Its weights in quanta, which are trained.
        initial: What they were.
        scales: The scale of each output channel.
        fixed: The weights that stay: writers derive a channel's scale from its largest weight, and
            a channel of zeros has none of its own.
    """

    quanta: Tensor
    initial: Tensor
    scales: Tensor
    fixed: Tensor

    @classmethod
    def of(cls, kernel: Array) -> _Kernel:
        initial = torch.from_numpy(in_quanta(kernel))
        scales = torch.from_numpy(weight_scales(kernel)).reshape(-1, 1, 1, 1)
        fixed = (initial.abs() > 126.5) | (initial == 0).all(3, True).all(2, True).all(1, True)
        return cls(initial.clone().requires_grad_(), initial, scales, fixed)

    def integers(self) -> Tensor:
        """Return the weights as int8 holds them; gradients pass."""
        kept = torch.where(self.fixed, self.initial, self.quanta)
        near = torch.minimum(
            torch.maximum(kept, self.initial - _FARTHEST), self.initial + _FARTHEST
        )
        clipped = near.clamp(-127, 127)
        return clipped + (clipped.round() - clipped).detach()

    def real(self) -> Tensor:
        """Return the numbers that the integers stand for."""
        return self.integers() * self.scales

    def text(self) -> str:
        """Return the integers as ``ScaleTable.roundings`` holds them."""
        offsets = self.integers().detach() - self.initial.floor()
        return as_text(offsets.numpy().astype(np.int8))


@dataclass(frozen=True)
class _Shift:
    """What is added to a bias.

    Attributes:
        quanta: In quanta of what the convolution makes, which are trained.
        bias: The bias.
        scale: The scale of what the convolution makes.
    """

    quanta: Tensor
    bias: Tensor
    scale: float

    def real(self) -> Tensor:
        """Return the bias with what is added."""
        return self.bias + self.quanta * self.scale


class _Tuned(Interpreter):
    """The int8 form of a graph with what is trained of it.

    Attributes:
        kernels: By their names in the graph.
        shifts: By the names of biases.
        widths: Logarithms of what multiplies scales, one for all activations that share one.
    """

    def __init__(self, graph: Graph, table: ScaleTable) -> None:
        simulator = Simulator(graph, table)
        rounded = simulator.constants or {}
        constants = {
            name: rounded.get(name, torch.from_numpy(array))
            for name, array in graph.constants.items()
        }
        super().__init__(graph, constants)
        self._constants = constants
        self._table = table
        self.kernels: dict[str, _Kernel] = {}
        self.shifts: dict[str, _Shift] = {}
        for node in graph.nodes:
            if node.op not in CONVOLUTIONS:
                continue
            _, weight, bias = node.inputs
            array, axis = graph.constants[weight], output_axis(node)
            constants[bias] = torch.from_numpy(graph.constants[bias])
            if node.op == "Conv" and graph.is_captured(graph.origin(weight)):
                target = simulator.scales[(graph.fused_relu(node) or node).output].scale
                shift = torch.zeros_like(constants[bias]).requires_grad_()
                self.kernels.setdefault(weight, _Kernel.of(array))
                self.shifts[bias] = _Shift(shift, constants[bias], target)
            else:
                shape = [-1 if index == axis else 1 for index in range(array.ndim)]
                scales = weight_scales(array, axis).reshape(shape)
                constants[weight] = torch.from_numpy(quantized_weight(array, axis) * scales)
        kept = {PIXELS, SIGMOID, *(table.of(name) for name in table.overflow)}
        free = dict.fromkeys(one for one in table.activations.values() if one not in kept)
        self.widths = {one: torch.zeros((), requires_grad=True) for one in free}

    def __call__(self, image: Tensor) -> Tensor:
        """Restore N × 3 × H × W pictures; the result is not rounded."""
        self._constants.update((name, one.real()) for name, one in self.kernels.items())
        self._constants.update((name, one.real()) for name, one in self.shifts.items())
        return super().__call__(image)

    def activation(self, name: str, value: Tensor) -> Tensor:
        """Round an activation to its 8 bits."""
        if name == self.graph.output:
            return value
        held = self._table.of(self.graph.origin(name))
        width = self.widths.get(held)
        scale = torch.tensor(held.scale) if width is None else held.scale * width.exp()
        ends = _ends(held)
        rounded: Tensor = _Rounded.apply(value, scale, *ends)  # type: ignore[no-untyped-call]
        return rounded

    def table(self) -> ScaleTable:
        """Return the table with what has been trained."""
        graph, table = self.graph, self._table

        def scaled(held: Quantization) -> Quantization:
            width = self.widths.get(held)
            if width is None:
                return held
            return Quantization(
                float(np.float32(held.scale * math.exp(width.item()))), held.zero_point
            )

        corrections = dict(table.corrections)
        for node in graph.nodes:
            if node.op == "Conv" and node.inputs[2] in self.shifts:
                added = self.shifts[node.inputs[2]].quanta * self.shifts[node.inputs[2]].scale
                before = corrections[graph.origin(node.output)]
                corrections[graph.origin(node.output)] = tuple(
                    float(f"{one + other:.6g}")
                    for one, other in zip(before, added.tolist(), strict=True)
                )
        roundings = {
            kernel: tuple(self.kernels[name].text() for name in names)
            for kernel, names in kernel_forms(graph).items()
            if graph.is_captured(kernel)
        }
        activations = {name: scaled(held) for name, held in table.activations.items()}
        return dataclasses.replace(
            table, activations=activations, roundings=roundings, corrections=corrections
        )


def _ends(held: Quantization) -> tuple[int, int]:
    return -128 - held.zero_point, 127 - held.zero_point
