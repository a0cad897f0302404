"""Idioms: what exporters write for one operator, read as that operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture.torch_capture import capture
from export.execution import execute


class _Applied(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)


# Several spellings of a function, and how often each operator of the vocabulary is in it.
_SPELLINGS: Mapping[str, tuple[Callable[[Tensor], Tensor], Mapping[str, int]]] = {
    "silu": (F.silu, {"Silu": 1}),
    "silu of a product": (lambda x: (x * 2) * torch.sigmoid(x * 2), {"Mul": 1, "Silu": 1}),
    "gelu": (F.gelu, {"Gelu": 1}),
    "gelu of a gelu": (lambda x: F.gelu(F.gelu(x)), {"Gelu": 2}),
    "gelu by its definition": (lambda x: 0.5 * (x + x * torch.erf(x / 2**0.5)), {"Gelu": 1}),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), {"GeluTanh": 1}),
    "mish": (F.mish, {"Mish": 1}),
    "mish by its definition": (
        lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))),
        {"Mish": 1},
    ),
    "tanh": (torch.tanh, {"Tanh": 1}),
    "hard swish": (F.hardswish, {"HardSwish": 1}),
    "hard swish by relu6": (lambda x: x * F.relu6(x + 3) / 6, {"HardSwish": 1}),
    "hard swish by a hard sigmoid": (lambda x: x * (F.relu6(x + 3) / 6), {"HardSwish": 1}),
    "hard sigmoid": (F.hardsigmoid, {"HardSigmoid": 1}),
    "softplus": (F.softplus, {"Softplus": 1}),
    "sqrt": (torch.sqrt, {"Sqrt": 1}),
    "exp": (torch.exp, {"Exp": 1}),
    "absolute value": (torch.abs, {"Abs": 1}),
    # A sigmoid of another slope, which is no SiLU.
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), {"Mul": 2, "Sigmoid": 1}),
    "another gate": (lambda x: x * torch.sigmoid(x + 1), {"Add": 1, "Mul": 1, "Sigmoid": 1}),
}


@pytest.mark.parametrize("name", _SPELLINGS)
def test_a_function_is_read_as_one_operator_however_it_is_written(name: str) -> None:
    function, operators = _SPELLINGS[name]
    graph = capture(_Applied(function))
    assert graph.operators() == operators
    image = torch.from_numpy(np.random.default_rng(3).random((1, 3, 5, 7), np.float32))
    torch.testing.assert_close(execute(graph, image), function(image))


class _Norms(nn.Module):
    """Normalizations of eight channels behind a convolution, written in several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.way = way
        self.entry, self.exit = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.scale, self.shift = (nn.Parameter(torch.rand(8, 1, 1) + 0.5) for _ in range(2))
        self.layer, self.group = nn.LayerNorm(8), nn.GroupNorm(4, 8)
        self.instance, self.batch = nn.InstanceNorm2d(8, affine=True), nn.BatchNorm2d(8)
        with torch.no_grad():
            for norm in (self.layer, self.group, self.instance, self.batch):
                norm.weight.copy_(self.scale.flatten())
                norm.bias.copy_(self.shift.flatten())
            self.batch.running_mean.copy_(self.shift.flatten() / 3)
            self.batch.running_var.copy_(self.scale.flatten() / 2)

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.exit(self.normalized(self.entry(image)))
        return restored

    def normalized(self, x: Tensor) -> Tensor:
        """Return eight channels, normalized."""
        if self.way == "layer norm":
            planes: Tensor = self.layer(x.permute(0, 2, 3, 1))
            return planes.permute(0, 3, 1, 2)
        if self.way in {"group", "instance", "batch"}:
            normal: Tensor = getattr(self, self.way)(x)
            return normal
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        if self.way == "quotient":
            return self.scale * (centred / (variance + 1e-6).sqrt()) + self.shift
        if self.way == "product":
            return centred * torch.rsqrt(variance + 1e-6) * self.scale + self.shift
        return centred * variance  # no normalization


@pytest.mark.parametrize(
    ("way", "operators"),
    [
        ("layer norm", {"ChannelNorm": 1, "Conv": 2}),
        ("quotient", {"ChannelNorm": 1, "Conv": 2}),
        ("product", {"ChannelNorm": 1, "Conv": 2}),
        ("group", {"Conv": 2, "GroupNorm": 1}),
        ("instance", {"Conv": 2, "GroupNorm": 1}),
        ("batch", {"Conv": 2}),
        ("neither", {"Conv": 4, "Mul": 2, "Sub": 1}),
    ],
)
def test_a_normalization_is_read_as_one_operator(way: str, operators: dict[str, int]) -> None:
    network = _Norms(way).eval()
    graph = capture(network)
    assert graph.operators() == operators
    image = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, image), network(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 2, 5])
def test_channels_assigned_in_place_are_concatenated(first: int) -> None:
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.entry, self.part = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            x: Tensor = self.entry(image)
            x[:, first : first + 3] = self.part(x[:, first : first + 3])
            return x[:, 1:4]

    network = Partial().eval()
    graph = capture(network)
    assert set(graph.operators()) == {"Concat", "Conv", "Split"}
    image = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, image), network(image))


def test_what_others_read_of_a_function_stays() -> None:
    def both(x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        return x * gate + gate

    graph = capture(_Applied(both))
    assert graph.operators() == {"Add": 1, "Sigmoid": 1, "Silu": 1}
    image = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(execute(graph, image), both(image))


def test_a_hard_sigmoid_of_another_slope_is_no_hard_sigmoid() -> None:
    graph = capture(_Applied(lambda x: (0.2 * x + 0.5).clamp(0, 1)))
    assert graph.operators() == {"Add": 1, "Clip": 1, "Mul": 1}
