"""Factors of channels leave the output unchanged and refine the channels that matter to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.capture.torch_capture import capture
from export.execution import execute
from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.gains import combined_gains, with_gains
from quantize import equalization
from quantize.equalization import channel_gains, factors
from quantize.sensitivity import effect_of_noise
from training.networks.mepsnet import Mepsnet, MepsnetConfig

_SEEDED = torch.Generator().manual_seed(0)
_IMAGES = [torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=_SEEDED) for _ in range(2)]


def _gains(
    graph: Graph, photographs: list[torch.Tensor], *colours: torch.Tensor
) -> dict[str, tuple[float, ...]]:
    effects = effect_of_noise(graph, photographs)
    return channel_gains(graph, effects, photographs, colours)[0]


def _picture_beside(others: float, *readers: Node) -> Graph:
    """A picture copied by channels 0 to 2 of a Relu, beside three others that hardly count."""
    first = np.zeros((6, 3, 1, 1), np.float32)
    first[[0, 1, 2], [0, 1, 2]] = 1
    first[[3, 4, 5], [0, 1, 2]] = others
    last = np.zeros((3, 6, 1, 1), np.float32)
    last[[0, 1, 2], [0, 1, 2]] = 1
    last[:, 3:] = 1e-4
    constants = {"first": first, "last": last}
    constants |= {"six": np.zeros(6, np.float32), "three": np.zeros(3, np.float32)}
    read = readers[-1].output if readers else "b"
    nodes = (
        Node("Conv", "a", ("image", "first", "six"), ("a",), {"groups": 1}),
        Node("Relu", "b", ("a",), ("b",)),
        *readers,
        Node("Conv", "c", (read, "last", "three"), ("restored_image",), {"groups": 1}),
    )
    return Graph(nodes, constants)


@pytest.mark.parametrize(("others", "factor"), [(8.0, 8.0), (2.0, 2.0), (100.0, 16.0)])
def test_channels_that_carry_the_picture_reach_as_far_as_the_others(
    others: float, factor: float
) -> None:
    gains = _gains(_picture_beside(others), _IMAGES)

    assert gains.keys() == {"a", "b"}
    assert gains["a"] == gains["b"]
    assert {one / other for one, other in zip(gains["b"][:3], gains["b"][3:], strict=True)} == {
        factor
    }


def test_channels_that_reach_equally_far_stay() -> None:
    assert _gains(_picture_beside(1.0), _IMAGES) == {}


def test_what_others_than_convolutions_read_stays() -> None:
    graph = _picture_beside(8.0, Node("Mul", "twice", ("b", "b"), ("twice",)))

    assert _gains(graph, _IMAGES) == {}


def test_channels_that_only_saturated_colours_drive_far_are_halved_through_a_shuffle() -> None:
    first = np.zeros((8, 3, 1, 1), np.float32)
    first[:4, 1] = 1  # green
    first[4:, 0], first[4:, 2] = 2, -2  # red minus blue, which photographs of grey lack
    constants = {"first": first, "last": np.ones((3, 2, 1, 1), np.float32)}
    constants |= {"eight": np.zeros(8, np.float32), "three": np.zeros(3, np.float32)}
    nodes = (
        Node("Conv", "a", ("image", "first", "eight"), ("a",), {"groups": 1}),
        Node("Relu", "b", ("a",), ("b",)),
        Node("DepthToSpace", "s", ("b",), ("s",), {"block": 2, "mode": "CRD"}),
        Node("Conv", "c", ("s", "last", "three"), ("restored_image",), {"groups": 1}),
    )
    graph = Graph(nodes, constants)
    grey = [torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=_SEEDED).expand(1, 3, 8, 8)]
    red = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    red[:, 0] = 1

    assert set(_gains(graph, grey)) == set()
    gains = _gains(graph, grey, red)
    assert gains == {"a": (1.0,) * 4 + (0.5,) * 4, "b": (1.0,) * 4 + (0.5,) * 4, "s": (1.0, 0.5)}
    assert torch.equal(execute(with_gains(graph, gains), red), execute(graph, red))


def test_a_network_with_equalized_channels_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def octaves(reach: torch.Tensor, *_: object) -> tuple[tuple[float, ...], None]:
        return tuple(2.0 ** -(channel % 3) for channel in range(len(reach))), None

    monkeypatch.setattr(equalization, "with_least_noise", octaves)
    torch.manual_seed(0)
    config = MepsnetConfig(extraction=(8, 8), channels=4, experts=2, srirs=1, blocks=1, templates=2)
    graph = lower(capture(Mepsnet(config).at_scale(1).eval()), QUANTIZED_FORM)
    image = torch.rand(1, 3, 9, 7)

    gains = _gains(graph, _IMAGES)

    assert any(one != 1 for channels in gains.values() for one in channels)
    with torch.inference_mode():
        equalized = execute(with_gains(graph, gains), image)
        torch.testing.assert_close(equalized, execute(graph, image), atol=1e-6, rtol=0)


def test_each_group_of_a_convolution_is_divided_by_the_gains_of_the_channels_it_reads() -> None:
    random = np.random.default_rng(0)
    shapes = {"first": (4, 3, 3, 3), "four": (4,), "last": (6, 2, 3, 3), "six": (6,)}
    constants = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    nodes = (
        Node("Conv", "a", ("image", "first", "four"), ("a",), {"groups": 1}),
        Node("Conv", "b", ("a", "last", "six"), ("restored_image",), {"groups": 2}),
    )
    graph, image = Graph(nodes, constants), _IMAGES[0]

    gained = with_gains(graph, {"a": (1.0, 2.0, 4.0, 0.5)})

    assert torch.equal(execute(gained, image), execute(graph, image))


@settings(deadline=None)
@given(
    channels=st.lists(
        st.tuples(st.floats(0.01, 100).map(np.float32), st.floats(0, 1)), min_size=1, max_size=6
    ),
    dead=st.booleans(),
)
def test_factors_make_nothing_larger_and_never_more_noise(
    channels: list[tuple[float, float]], dead: bool
) -> None:
    reach = torch.tensor([float(one) for one, _ in channels] + [0.0] * dead, dtype=torch.float64)
    effect = torch.tensor([one for _, one in channels] + [1.0] * dead, dtype=torch.float64)

    found = factors(reach, effect)

    gains = torch.tensor(found, dtype=torch.float64)
    assert gains.min() >= 1 / 16
    assert not dead or found[-1] == 1

    def noise(gains: torch.Tensor) -> float:
        return float((effect / gains**2).sum() * (gains * reach).max() ** 2)

    # The highest limit leaves all channels as they are.
    assert noise(gains) <= noise(torch.ones_like(reach)) * (1 + 1e-9)
    assert max(found) == pytest.approx(1)


def test_gains_of_channels_and_of_activations_are_multiplied() -> None:
    combined = combined_gains({"a": (2.0, 1.0)}, {"a": 0.5, "b": 4.0})

    assert combined == {"a": (1.0, 0.5), "b": 4.0}
