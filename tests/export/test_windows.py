"""Rewrites of windows of pixels, and tiles of networks that read pixels in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import CannotLower
from export.execution import execute
from export.graph import Graph, Node
from export.node import Attribute
from export.rewrites.windows import (
    convolve_blocks,
    pad_before_convolutions,
    transposed_by_shuffles,
)
from runtime.engines.engine import Engine
from runtime.manifest import TensorInfo
from runtime.session import Session
from runtime.tiling import restore_tiled

Array = NDArray[np.float32]
_few = settings(deadline=None, max_examples=30)
_PLAIN = (0, 0, 0, 0)
_sides = st.tuples(*[st.integers(0, 3)] * 4)
_kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))


def _random(*shape: int) -> Array:
    """Return weights, or biases, that keep values inside [0, 1] for the most part."""
    values = np.random.default_rng(sum(shape)).normal(0, 0.1, shape)
    if len(shape) == 1:
        return (values + 0.5).astype(np.float32)
    return (values / np.sqrt(np.prod(shape[2:]) / 9)).astype(np.float32)


class _Stack:
    """Layers one upon another, from the picture up."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.value = "image"

    def add(self, op: str, *arrays: Array, **attributes: Attribute) -> _Stack:
        name = f"{op.lower()}{len(self.nodes)}"
        operands = [f"{name}.{index}" for index in range(len(arrays))]
        self.constants |= dict(zip(operands, arrays, strict=True))
        self.nodes.append(Node(op, name, (self.value, *operands), (name,), attributes))
        self.value = name
        return self

    def convolve(self, channels: int, outputs: int, kernel: tuple[int, int], **given: Any) -> None:
        plain: dict[str, Any] = {"groups": 1, "stride": 1, "dilation": 1, "pads": _PLAIN, **given}
        weight = _random(outputs, channels // plain["groups"], *kernel)
        self.add("GeneralConv", weight, _random(outputs), **plain)

    def graph(self) -> Graph:
        return Graph(tuple(self.nodes), self.constants, "image", self.value).check()


def _change(before: Graph, after: Graph, height: int = 7, width: int = 9) -> float:
    after.check()
    sides = before.sides
    image = torch.rand(1, 3, sides.fitting(height), sides.fitting(width), dtype=torch.float64)
    expected, found = (execute(graph, image) for graph in (before, after))
    assert expected.shape == found.shape
    return float((expected - found).abs().max())


@_few
@given(
    kernel=_kernels,
    stride=st.integers(1, 4),
    crops=_sides,
    groups=st.sampled_from([1, 3]),
)
def test_transposed_by_shuffles(
    kernel: tuple[int, int], stride: int, crops: tuple[int, int, int, int], groups: int
) -> None:
    assume(min(kernel) >= stride)
    stack = _Stack()
    weight, bias = _random(3, 6 // groups, *kernel), _random(6)
    stack.add("ConvTranspose", weight, bias, stride=stride, groups=groups, crops=crops)
    graph = stack.graph()
    try:
        changed = transposed_by_shuffles(graph)
    except CannotLower as error:
        assert "more than its kernel" in str(error)
        assert max(crops) >= min(kernel)
        return
    assert "ConvTranspose" not in changed.operators()
    assert _change(graph, changed) <= 1e-6
    assert changed.halo() <= graph.halo() + stride


def test_a_transposed_convolution_as_large_as_its_stride_is_one_pixel_of_a_shuffle() -> None:
    stack = _Stack().add(
        "ConvTranspose", _random(3, 4, 2, 2), _random(4), stride=2, groups=1, crops=_PLAIN
    )
    changed = transposed_by_shuffles(stack.graph())
    assert changed.operators() == {"Conv": 1, "DepthToSpace": 1}
    (kernel,) = (array for array in changed.constants.values() if array.ndim == 4)
    assert kernel.shape == (16, 3, 1, 1)


def test_a_cropped_transposed_convolution_costs_no_more_than_before() -> None:
    stack = _Stack().add(
        "ConvTranspose", _random(3, 4, 4, 4), _random(4), stride=2, groups=1, crops=(1, 1, 1, 1)
    )
    graph = stack.graph()
    changed = transposed_by_shuffles(graph)
    assert changed.operators() == {"DepthToSpace": 1, "GeneralConv": 1, "Pad": 1}
    assert changed.multadds(1280, 720) == graph.multadds(1280, 720)


@_few
@given(
    block=st.integers(1, 3),
    mode=st.sampled_from(["CRD", "DCR"]),
    kernel=_kernels,
    pads=_sides,
    stride=st.integers(1, 2),
)
def test_convolve_blocks(
    block: int, mode: str, kernel: tuple[int, int], pads: tuple[int, int, int, int], stride: int
) -> None:
    stack = _Stack().add("SpaceToDepth", block=block, mode=mode)
    stack.convolve(3 * block**2, 5, kernel, stride=stride, pads=pads)
    graph = stack.graph()
    changed = convolve_blocks(graph)
    assert set(changed.operators()) <= {"Conv", "GeneralConv"} and len(changed.nodes) == 1
    assert _change(graph, changed, 11, 13) <= 1e-6
    assert changed.multadds(1280, 720) == graph.multadds(1280, 720)


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_blocks_that_others_than_convolutions_read_are_copied_exactly(mode: str) -> None:
    stack = _Stack().add("SpaceToDepth", block=2, mode=mode).add("Relu")
    changed = convolve_blocks(stack.graph())
    assert changed.operators() == {"GeneralConv": 1, "Relu": 1}
    assert _change(stack.graph(), changed) == 0


@_few
@given(kernel=_kernels, stride=st.integers(1, 3), pads=_sides, dilation=st.integers(1, 2))
def test_pad_before_convolutions(
    kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int], dilation: int
) -> None:
    stack = _Stack()
    stack.convolve(3, 4, kernel, stride=stride, pads=pads, dilation=dilation)
    graph = stack.graph()
    changed = pad_before_convolutions(graph)
    assert _change(graph, changed, 12, 12) == 0
    assert pad_before_convolutions(changed) == changed
    assert all(
        changed.origin(name) == "image" for node in changed.nodes[:-1] for name in node.outputs
    )


class _Torch(Engine):
    """An engine that runs a graph in torch, in float64."""

    def __init__(self, graph: Graph) -> None:
        free = (1, 3, None, None)
        ends = (TensorInfo(name, "NCHW", "float32", free) for name in ("image", graph.output))
        super().__init__("torch", *((end,) for end in ends))
        self.graph = graph
        self.seen: set[tuple[int, ...]] = set()

    def feed(self, name: str, array: NDArray[Any]) -> None:
        self.fed = torch.from_numpy(array).double()
        self.seen.add(tuple(array.shape[2:]))

    def invoke(self) -> None:
        self.restored = execute(self.graph, self.fed)

    def fetch(self, name: str) -> NDArray[Any]:
        return self.restored.numpy()

    def close(self) -> None: ...


_LAYERS: Mapping[str, Any] = {
    "strides": lambda stack: stack.convolve(3, 3, (3, 3), stride=2, pads=(1, 1, 1, 1)),
    "blocks": lambda stack: stack.convolve(3, 3, (2, 2), stride=2),
    "long": lambda stack: stack.convolve(3, 3, (1, 5), pads=(0, 0, 4, 0)),
    "dilated": lambda stack: stack.convolve(3, 3, (3, 3), dilation=2, pads=(2, 2, 2, 2)),
    "reflected": lambda stack: (
        stack.add("Pad", pads=(2, 2, 2, 2), mode="reflect"),
        stack.convolve(3, 3, (5, 5)),
    ),
    "edge": lambda stack: (
        stack.add("Pad", pads=(1, 3, 0, 2), mode="edge"),
        stack.add("Pad", pads=(-2, -2, -1, -1), mode="zeros"),
    ),
    "pooled": lambda stack: stack.add("MaxPool", kernel=(2, 2), stride=2, pads=_PLAIN),
    "doubled": lambda stack: stack.add(
        "ConvTranspose", _random(3, 3, 4, 4), _random(3), stride=2, groups=1, crops=(1, 1, 1, 1)
    ),
}
_FINER = {"strides": 0.5, "blocks": 0.5, "pooled": 0.5, "doubled": 2}


@settings(deadline=None, max_examples=40)
@given(
    layers=st.lists(st.sampled_from(sorted(_LAYERS)), min_size=1, max_size=5),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.sampled_from([None, 5, 16]),
)
def test_tiles_are_the_whole_picture(
    layers: list[str], height: int, width: int, tile: int | None
) -> None:
    stack, resolution = _Stack(), 1.0
    for layer in layers:
        _LAYERS[layer](stack)
        resolution *= _FINER.get(layer, 1)
    while resolution < 1:  # back to the picture's size
        _LAYERS["doubled"](stack)
        resolution *= 2
    graph = stack.graph()
    extents = {extent for size in (graph.sizes()[graph.output],) for extent in size}
    assume(extents == {next(iter(extents))} and next(iter(extents)).offset == 0)
    engine = _Torch(graph)
    session = Session("a", engine, graph.scale, graph.halo(), sides=graph.sides)
    image = np.random.default_rng(height).random((height, width, 3), np.float32)
    whole = np.clip(session.run(image), 0, 1)
    assert whole.shape == (graph.scale * height, graph.scale * width, 3)
    assert np.abs(restore_tiled(session, image, tile) - whole).max() <= 1e-6
    multiple = graph.multiple
    assert all(side % multiple == 0 for seen in engine.seen for side in seen)


def test_a_halo_one_block_short_shows() -> None:
    stack = _Stack()
    stack.convolve(3, 3, (4, 4), stride=2, pads=(1, 1, 1, 1))
    stack.convolve(3, 3, (3, 3), pads=(1, 1, 1, 1))
    stack.add(
        "ConvTranspose", _random(3, 3, 4, 4), _random(3), stride=2, groups=1, crops=(1, 1, 1, 1)
    )
    graph = stack.graph()
    image = np.random.default_rng(3).random((64, 64, 3), np.float32)
    differences = []
    for halo in (graph.halo(), graph.halo() - 2):
        session = Session("a", _Torch(graph), 1, halo, sides=graph.sides)
        whole = np.clip(session.run(image), 0, 1)
        differences.append(float(np.abs(restore_tiled(session, image, 8) - whole).max()))
    assert differences[0] <= 1e-6 < 1e-4 < differences[1]
