"""Factors of activations leave the output unchanged and even out magnitudes that share a scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.capture.torch_capture import capture
from export.execution import activations_of, execute
from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.gain_groups import gain_groups
from export.rewrites.gains import with_gains
from quantize.gain_choice import choose_gains
from quantize.observers import observe
from training.networks.carn import AtScale, Carn, CarnConfig
from training.networks.mepsnet import Mepsnet, MepsnetConfig

_PLAIN = CarnConfig(channels=4, blocks=2, units=2, scales=(3,))
_SHARED = CarnConfig(
    channels=4, blocks=2, units=2, groups=2, efficient=True, recursive=True, scales=(4,)
)
_MEPSNET = MepsnetConfig(extraction=(4,), channels=4, experts=2, srirs=1, blocks=1, templates=2)


def _lowered(module: nn.Module) -> Graph:
    return lower(capture(module.eval()), QUANTIZED_FORM)


def _networks() -> dict[str, Graph]:
    torch.manual_seed(0)
    return {
        "carn": _lowered(AtScale(Carn(_PLAIN), 3)),
        "carn-m": _lowered(AtScale(Carn(_SHARED), 4)),
        "mepsnet": _lowered(Mepsnet(_MEPSNET).at_scale(1)),
    }


_NETWORKS = _networks()
_IMAGE = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(1))


def _values(graph: Graph, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return activations_of(graph, image)


@pytest.mark.parametrize("name", _NETWORKS)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_groups_may_have_any_powers_of_two(name: str, data: st.DataObject) -> None:
    graph = _NETWORKS[name]
    fixed, *groups = gain_groups(graph)
    exponents = data.draw(st.lists(st.integers(-6, 6), min_size=len(groups), max_size=len(groups)))
    gains = {
        value: 2.0**exponent
        for members, exponent in zip(groups, exponents, strict=True)
        for value in members
    }

    before, after = _values(graph, _IMAGE), _values(with_gains(graph, gains), _IMAGE)

    assert {graph.input, graph.output, "image/ones"} <= set(fixed)
    joined = {node.output for node in graph.nodes if node.op == "Concat"}
    for value in before.keys() - joined:
        assert torch.equal(after[value], before[value] * gains.get(value, 1.0)), value


def test_a_kernel_that_convolutions_share_is_divided_for_each_of_them() -> None:
    random = np.random.default_rng(0)
    constants = {"w": random.normal(size=(3, 3, 1, 1)), "b": random.normal(size=3)}
    nodes = (
        Node("Conv", "one", ("image", "w", "b"), ("x",), {"groups": 1}),
        Node("Conv", "two", ("x", "w", "b"), ("y",), {"groups": 1}),
        Node("Conv", "three", ("y", "w", "b"), ("restored_image",), {"groups": 1}),
    )
    graph = Graph(nodes, {name: array.astype(np.float32) for name, array in constants.items()})

    gained = with_gains(graph, {"x": 2.0, "y": (1.0, 4.0, 0.5)})

    assert torch.equal(execute(gained, _IMAGE), execute(graph, _IMAGE))
    kernels = [node.inputs[1] for node in gained.nodes]
    assert len(set(kernels)) == 3 and {gained.origin(name) for name in kernels} == {"w"}


def test_most_of_a_carn_is_free_and_a_gate_is_not() -> None:
    assert len(gain_groups(_NETWORKS["carn"])) > 10
    graph = _NETWORKS["mepsnet"]
    fixed = gain_groups(graph)[0]
    for node in graph.nodes:
        if node.op in {"Sigmoid", "Mul", "GlobalAveragePool", "Concat"}:
            assert {*node.inputs, *node.outputs} <= set(fixed)


def _joined(first: float, second: float, *readers: Node) -> Graph:
    """Two convolutions of the picture with these weights, concatenated, and a 1×1 that reads it."""
    constants = {
        "first": np.full((1, 3, 1, 1), first, np.float32),
        "second": np.full((1, 3, 1, 1), second, np.float32),
        "last": np.ones((3, 2, 1, 1), np.float32),
        "one": np.zeros(1, np.float32),
        "three": np.zeros(3, np.float32),
    }
    nodes = (
        Node("Conv", "a", ("image", "first", "one"), ("a",), {"groups": 1}),
        Node("Conv", "b", ("image", "second", "zero"), ("b",), {"groups": 1}),
        Node("Concat", "cat", ("a", "b"), ("cat",)),
        *readers,
        Node("Conv", "c", ("cat", "last", "three"), ("restored_image",), {"groups": 1}),
    )
    return Graph(nodes, {**constants, "zero": np.zeros(1, np.float32)})


def _ranges(graph: Graph, image: torch.Tensor) -> dict[str, tuple[float, float]]:
    return {name: (seen.low, seen.high) for name, seen in observe(graph, [image]).items()}


@pytest.mark.parametrize(
    ("second", "factor"), [(0.1, 1), (0.4, 0.25), (0.7, 0.125), (0.025, 4), (99, 1 / 256), (0, 1)]
)
def test_what_shares_a_scale_is_brought_to_the_reach_of_the_first(
    second: float, factor: float
) -> None:
    graph = _joined(0.1, second)
    effect = {"a": 1000.0, "b": 1.0}

    gains = choose_gains(graph, [("a", "b", "cat")], _ranges(graph, _IMAGE), effect)

    assert gains == ({} if factor == 1 else {"b": factor})


def test_what_matters_most_decides_how_far_all_reach() -> None:
    graph = _joined(0.1, 0.175)  # at a factor of 1 b would widen the scale, at 1/2 it is coarser
    ranges, classes = _ranges(graph, _IMAGE), [("a", "b", "cat")]

    assert choose_gains(graph, classes, ranges, {"a": 1000.0, "b": 1.0}) == {"b": 0.5}
    assert choose_gains(graph, classes, ranges, {"a": 1.0, "b": 1000.0}) == {}


def test_what_others_than_convolutions_read_stays() -> None:
    graph = _joined(0.1, 0.9, Node("Relu", "also", ("cat",), ("also",)))

    assert choose_gains(graph, [("a", "b", "cat")], _ranges(graph, _IMAGE), {"a": 1.0}) == {}


def test_convolutions_that_share_their_kernel_may_have_factors_of_their_own() -> None:
    graph = _NETWORKS["carn-m"]
    kernels: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "Conv":
            kernels.setdefault(node.inputs[1], []).append(node)
    shared = next(nodes for nodes in kernels.values() if len(nodes) > 1)
    of = {value: members for members in gain_groups(graph) for value in members}

    assert of[shared[0].output] != of[shared[1].output]
