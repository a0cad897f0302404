"""Sigmoids that gate channels have scales of their own, masks those of TFLite."""

from __future__ import annotations

import numpy as np
import pytest

from export.graph import Graph, Node
from export.scales import SIGMOID
from quantize.gates import sigmoid_scales


@pytest.fixture
def graph() -> Graph:
    """A mask of the picture, and a gate of its channels."""
    constants = {"w": np.eye(3, dtype=np.float32)[..., None, None], "b": np.zeros(3, np.float32)}
    nodes = (
        Node("Conv", "near", ("image", "w", "b"), ("wide",), {"groups": 1}),
        Node("Sigmoid", "mask", ("wide",), ("mask",)),
        Node("GlobalAveragePool", "pool", ("wide",), ("mean",)),
        Node("Sigmoid", "gate", ("mean",), ("gate",)),
        Node("Mul", "masked", ("wide", "mask"), ("masked",)),
        Node("Mul", "gated", ("masked", "gate"), ("restored_image",)),
    )
    return Graph(nodes, constants).check()


@pytest.mark.parametrize(
    ("highest", "finer"),
    [(1.0, 1), (0.9, 1), (0.41, 1), (0.39, 2), (0.21, 2), (0.19, 4), (24.4 / 256, 8), (0.0, 65536)],
)
def test_gates_are_finer_by_a_power_of_two_with_a_quarter_to_spare(
    graph: Graph, highest: float, finer: int
) -> None:
    found = sigmoid_scales(graph, {"mask": (0.0, 0.05), "gate": (0.0, highest)})

    assert found["mask"] == SIGMOID
    assert found["gate"].scale == 1 / 256 / finer
    assert found["gate"].zero_point == -128
    assert 256 * found["gate"].scale >= min(1.0, 1.25 * highest)
