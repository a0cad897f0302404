"""Rounding weights up or down so that their errors cancel in the output of a convolution.

Rounding to nearest has the least error for each weight alone. But neighbouring pixels are alike,
and the errors of the weights that read them add up; in a first convolution they shift the colour of
whole areas. Here weights are rounded one after another, and the weights still to be rounded
compensate for the change on calibration pictures (Frantar et al., "GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers", ICLR 2023, section 3). Each weight goes to
one of its two neighbouring integers (Nagel et al., "Up or Down? Adaptive Rounding", ICML 2020). The
mean of a channel is left to ``quantize.bias_correction``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.execution import Interpreter
from export.graph import Array, Graph, Node
from export.integers import weight_scales
from export.rewrites.roundings import Flags, as_text, in_quanta, kernel_forms
from quantize.calibration import small_crops
from quantize.sensitivity import sensitivities

_WORTH_CHOOSING = 0.01  # share of the noise that rounding all weights makes
_DAMPING = 0.05  # share of the mean variance, for inputs that calibration pictures never show


def weight_roundings(graph: Graph, images: Sequence[Tensor]) -> dict[str, tuple[str, ...]]:
    """Choose which weights to round up, in the kernels whose rounding matters to the output.

    Args:
        graph: The result of ``export.rewrites.gains.with_gains``.
        images: Calibration pictures, 1 × 3 × H × W in [0, 1], float64.

    Returns:
        As ``ScaleTable.roundings``.
    """
    pictures = small_crops(images, graph.sides)
    noise = rounding_noise(graph, pictures)
    least = _WORTH_CHOOSING * sum(noise.values())
    shown = {graph.origin(name) for name, made in noise.items() if made > least}
    names = [name for name in noise if graph.origin(name) in shown]
    texts = {
        name: as_text(rounded_up(graph.constants[name], covariance))
        for name, covariance in input_covariances(graph, names, pictures).items()
    }
    forms = kernel_forms(graph)
    return {
        kernel: tuple(texts[name] for name in forms[kernel]) for kernel in map(graph.origin, texts)
    }


def rounding_noise(graph: Graph, images: Iterable[Tensor]) -> dict[str, float]:
    """Return how much rounding each kernel alone to nearest changes the output.

    The change is squared and summed over all pixels, to first order (see ``quantize.sensitivity``).
    """
    convolutions = _convolutions(graph)
    kernels = dict.fromkeys(node.inputs[1] for node in convolutions)
    errors = {name: _rounding_error(graph.constants[name]) for name in kernels}
    noise = dict.fromkeys(kernels, 0.0)
    for seen in sensitivities(graph, images):
        effects = dict.fromkeys(kernels, 0.0)
        for node in convolutions:
            (value, _), (_, gradient) = seen[node.inputs[0]], seen[node.output]
            kernel, groups = node.inputs[1], node.integer("groups")
            error = errors[kernel].to(value.dtype)
            change = F.conv2d(value, error, padding=error.shape[-1] // 2, groups=groups)
            effects[kernel] += float((gradient * change).sum())
        for kernel, effect in effects.items():
            noise[kernel] += effect**2
    return noise


def input_covariances(
    graph: Graph, kernels: Collection[str], images: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Return, for each kernel, the covariance of the inputs that its weights multiply.

    A kernel with n weights per output channel has one n × n matrix per group, groups × n × n. All
    convolutions that share the kernel contribute.
    """
    run = _Covariances(graph, kernels)
    with torch.inference_mode():
        for image in images:
            run(image)
    return run.covariances()


class _Covariances(Interpreter):
    """Sums, over all runs, the inputs that the weights of some kernels multiply, and products."""

    def __init__(self, graph: Graph, kernels: Collection[str]) -> None:
        super().__init__(graph)
        self._readers: dict[str, list[Node]] = {}
        for node in _convolutions(graph):
            if node.inputs[1] in kernels:
                self._readers.setdefault(node.inputs[0], []).append(node)
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, Tensor] = {}
        self._products: dict[str, Tensor] = {}

    def activation(self, name: str, value: Tensor) -> Tensor:
        for node in self._readers.get(name, ()):
            kernel = node.inputs[1]
            side = self.graph.constants[kernel].shape[-1]
            pixels = F.unfold(value, side, padding=side // 2)[0]
            pixels = pixels.reshape(node.integer("groups"), -1, pixels.shape[-1])
            self._counts[kernel] += pixels.shape[-1]
            self._sums[kernel] = self._sums.get(kernel, 0) + pixels.sum(-1, keepdim=True)
            self._products[kernel] = self._products.get(kernel, 0) + pixels @ pixels.mT
        return value

    before_relu = activation

    def covariances(self) -> dict[str, Tensor]:
        """Return the covariance by kernel, groups × n × n."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        return {
            name: self._products[name] / self._counts[name] - mean @ mean.mT
            for name, mean in means.items()
        }


def rounded_up(kernel: Array, covariance: Tensor) -> Flags:
    """Choose which weights of a kernel to round up.

    Args:
        kernel: Output × input/groups × k × k.
        covariance: As ``input_covariances`` returns it.
    """
    groups, n, _ = covariance.shape
    # Weights of the inputs that vary most come first: all others can make up for their errors. In
    # float32, because equal inputs vary equally only up to the last digits.
    varies = covariance.diagonal(dim1=1, dim2=2).float()
    order = varies.argsort(dim=1, descending=True, stable=True)
    group = torch.arange(groups).reshape(-1, 1, 1)
    covariance = covariance[group, order[:, :, None], order[:, None]]
    variance = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    damped = covariance + _DAMPING * variance.reshape(-1, 1, 1) * torch.eye(n).to(covariance)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True)
    wanted = torch.from_numpy(in_quanta(kernel)).to(covariance).reshape(groups, -1, n)
    wanted = wanted.gather(2, order[:, None].expand_as(wanted))
    down, up, nearest = wanted.floor(), wanted.ceil(), wanted.round()
    # The largest weight of a channel must stay ±127: writers derive the channel's scale from it.
    largest = wanted.abs() > 126.5
    low, high = torch.where(largest, nearest, down), torch.where(largest, nearest, up)
    chosen = torch.empty_like(wanted)
    for index in range(n):
        integers = wanted[:, :, index].round()
        chosen[:, :, index] = integers.clamp(low[:, :, index], high[:, :, index])
        error = (wanted[:, :, index] - chosen[:, :, index]) / factor[:, index, index, None]
        # The weights still to be rounded compensate for the error of this one.
        wanted[:, :, index + 1 :] -= error[:, :, None] * factor[:, None, index, index + 1 :]
    back = order.argsort(dim=1)[:, None].expand_as(chosen)
    flags: Flags = (chosen > down).gather(2, back).numpy().reshape(kernel.shape)
    return flags


def _rounding_error(kernel: Array) -> Tensor:
    quanta = in_quanta(kernel)
    return torch.from_numpy((np.rint(quanta) - quanta) * weight_scales(kernel)[:, None, None, None])


def _convolutions(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "Conv"]
