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
