"""What only functions read that flatten out spans where they change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.execution import execute
from export.graph import Graph, Node
from quantize.saturation import unsaturated

_RANGES = {"image": (0.0, 1.0), "wide": (-900.0, 40.0), "bent": (-0.3, 40.0)}


def _graph(function: str, read_twice: bool = False) -> Graph:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(0, 200, (4, 3, 1, 1)).astype(np.float32),
        "b": np.zeros(4, np.float32),
        "v": random.normal(size=(3, 4, 1, 1)).astype(np.float32),
        "c": np.zeros(3, np.float32),
    }
    last = "sum" if read_twice else "bent"
    nodes = [
        Node("Conv", "one", ("image", "w", "b"), ("wide",), {"groups": 1}),
        Node(function, "function", ("wide",), ("bent",)),
        *([Node("Add", "add", ("wide", "bent"), ("sum",))] if read_twice else []),
        Node("Conv", "two", (last, "v", "c"), ("restored_image",), {"groups": 1}),
    ]
    return Graph(tuple(nodes), weights).check()


@pytest.mark.parametrize("function", ["Silu", "Gelu", "Mish", "HardSwish", "Softplus"])
def test_far_negative_values_take_no_bits(function: str) -> None:
    graph = _graph(function)
    narrowed = unsaturated(graph, _RANGES, _RANGES)
    low, high = narrowed["wide"]
    assert -20 < low < -1
    assert high == 40
    assert narrowed["image"] == _RANGES["image"]
    # Clipping there changes the function by at most a quarter of a step.
    values = torch.linspace(-900, 40, 20_001, dtype=torch.float64).reshape(1, 1, 1, -1)
    bare = Graph((Node(function, "f", ("image",), ("restored_image",)),), {})
    shift = execute(bare, values) - execute(bare, values.clamp(low, high))
    assert float(shift.abs().max()) <= 0.26 * 40.3 / 255


def test_what_is_read_by_others_too_keeps_its_range() -> None:
    assert unsaturated(_graph("Silu", read_twice=True), _RANGES, _RANGES) == _RANGES


@pytest.mark.parametrize(
    ("function", "least", "results"), [("Tanh", 3, (-1.0, 1.0)), ("Sigmoid", 6, (0.0, 1.0))]
)
def test_both_ends_take_no_bits(function: str, least: float, results: tuple[float, float]) -> None:
    ranges = {**_RANGES, "wide": (-900.0, 700.0), "bent": results}
    low, high = unsaturated(_graph(function), ranges, ranges)["wide"]
    assert -2 * least < low < -least
    assert least < high < 2 * least
