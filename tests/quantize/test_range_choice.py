"""Ranges are narrow where that helps the output, and full where clipping would hurt it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.execution import Interpreter, execute
from export.graph import Graph, Node
from export.scales import Quantization
from quantize.range_choice import less_harmful_ranges
from quantize.sensitivity import effect_of_noise


def _graph(gains: tuple[float, float]) -> Graph:
    """Return a picture's copy in four channels, one of them ten times as large, weighed and summed.

    ``gains`` weigh the large channel and the others in the restored picture.
    """
    large, others = gains
    copied = np.zeros((4, 3, 1, 1), np.float32)
    copied[[0, 1, 2, 3], [0, 1, 2, 0]] = np.float32([1, 1, 1, 10])[:, None, None]
    weighed = np.zeros((3, 4, 1, 1), np.float32)
    weighed[[0, 1, 2], [0, 1, 2]] = others
    weighed[:, 3] = large
    constants = {"w1": copied, "b1": np.zeros(4), "w2": weighed, "b2": np.zeros(3)}
    nodes = [
        Node("Conv", "one", ("image", "w1", "b1"), ("a",), {"groups": 1}),
        Node("Conv", "two", ("a", "w2", "b2"), ("restored_image",), {"groups": 1}),
    ]
    return Graph(tuple(nodes), {k: v.astype(np.float32) for k, v in constants.items()})


@pytest.fixture
def images() -> list[torch.Tensor]:
    return [
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    ]


@pytest.mark.parametrize(("gains", "narrows"), [((0.0, 1.0), True), ((0.1, 0.0), False)])
def test_a_range_is_narrowed_only_where_the_output_gains(
    images: list[torch.Tensor], gains: tuple[float, float], narrows: bool
) -> None:
    full, narrow = ({"a": Quantization.of_range(0, end)} for end in (10, 1))

    chosen = less_harmful_ranges(_graph(gains), [("a",)], full, narrow, images)

    assert chosen == (narrow if narrows else full)


def test_activations_that_hardly_matter_keep_their_full_range(images: list[torch.Tensor]) -> None:
    graph = _graph((0.0, 1.0))
    full = {"a": Quantization.of_range(0, 10), "image": Quantization.of_range(0, 1000)}
    narrow = {"a": Quantization.of_range(0, 1), "image": Quantization.of_range(0, 1)}

    chosen = less_harmful_ranges(graph, [("image",), ("a",)], full, narrow, images)

    assert chosen == {"image": narrow["image"], "a": full["a"]}


def test_the_effect_of_noise_is_what_noise_does(images: list[torch.Tensor]) -> None:
    graph = _graph((0.3, 0.5))
    effect = effect_of_noise(graph, images * 50)

    noise, generator = 1e-3, torch.Generator().manual_seed(2)

    class Noisy(Interpreter):
        def activation(self, name: str, value: torch.Tensor) -> torch.Tensor:
            if name != "a":
                return value
            return value + noise * torch.randn(value.shape, generator=generator)

    added = [Noisy(graph)(image) - execute(graph, image) for image in images * 50]
    expected = sum(float(one.square().sum()) for one in added) / noise**2
    assert float(effect["a"].sum()) == pytest.approx(expected, rel=0.05)
