"""Rewrites must not change a single output, whatever the channels, groups, factors and sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import CannotLower, InvalidGraph
from export.execution import activations_of
from export.graph import Graph, Node
from export.lowering import REWRITES, lower
from export.profiles import PROFILES, profile_named
from export.rewrites.exact import carry_mean_as_channel, convolve_before_pooling, fold_output_shift
from export.rewrites.groups import (
    block_diagonal,
    make_convolutions_dense,
    split_grouped_convolutions,
    split_shuffled_convolutions,
    split_unaligned_groups,
)
from export.rewrites.interpolations import interpolate_by_convolutions
from export.rewrites.resizes import convolve_before_resizes
from export.rewrites.scalings import fold_scaling
from export.rewrites.shuffles import (
    block_kernel,
    convolve_before_shuffles,
    convolve_for_shuffles,
    dcr_order,
    join_rows_of_shuffles,
    use_dcr_shuffles,
    use_transposed_convolutions,
)
from export.rewrites.slopes import flatten_slopes
from export.sampling import PICTURE, POOLED
from runtime.errors import UserError

Array = NDArray[np.float32]
Capture = Callable[[str, int], Any]
Picture = Callable[[int, int], Array]

_few = settings(deadline=None, max_examples=25)
_sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


def _random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype(np.float32)


def _conv(
    value: str, output: str, inputs: int, outputs: int, size: int = 3, groups: int = 1
) -> tuple[Node, dict[str, Array]]:
    weight, bias = f"{output}.weight", f"{output}.bias"
    constants = {weight: _random(outputs, inputs // groups, size, size), bias: _random(outputs)}
    return Node("Conv", output, (value, weight, bias), (output,), {"groups": groups}), constants


def _shuffle(value: str, output: str, block: int, mode: str = "CRD") -> Node:
    return Node("DepthToSpace", "shuffle", (value,), (output,), {"block": block, "mode": mode})


def _upsampler(channels: int, block: int, groups: int = 1, mode: str = "CRD") -> Graph:
    """Return a convolution to ``groups`` values, one in groups, a PReLU, a shuffle, the exit."""
    wide = channels * block**2
    first, constants = _conv("image", "features", 3, 4 * groups, 1)
    grouped, more = _conv("features", "wide", 4 * groups, wide, 3, groups)
    last, rest = _conv("large", "restored_image", channels, 3)
    slopes = np.linspace(-0.5, 1, wide, dtype=np.float32)
    prelu = Node("PRelu", "prelu", ("wide", "slopes"), ("positive",))
    nodes = (first, grouped, prelu, _shuffle("positive", "large", block, mode), last)
    return Graph(nodes, {**constants, **more, **rest, "slopes": slopes})


def _values(graph: Graph, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return activations_of(graph, image, hidden=True)


def _change(before: Graph, after: Graph, image: torch.Tensor) -> float:
    """Return the largest change among the values that ``after`` marks as captured."""
    old, new = _values(before, image), _values(after, image)
    kept = [name for name in new if after.is_captured(name)]
    halves = {name for name in new if "/positive" in name or "/negative" in name}
    added = {name for name in new if name.endswith(("/blocks", "/copies"))}  # of their own origin
    assert {after.origin(name) for name in new.keys() - halves - added} <= set(old)
    assert after.output in kept
    return max(float((new[name] - old[name]).abs().max()) for name in kept)


def _largest_change(before: Graph, after: Graph, height: int, width: int) -> float:
    random = np.random.default_rng(height * 10 + width)
    image = torch.from_numpy(random.random((1, 3, height, width), dtype=np.float32))
    return _change(before, after, image)


@_few
@given(outputs=st.integers(1, 5), size=_sizes, relu=st.booleans())
def test_fold_output_shift(outputs: int, size: tuple[int, int], relu: bool) -> None:
    conv, constants = _conv("image", "sum_before", 3, outputs)
    shifted = "shifted" if relu else "restored_image"
    nodes = [conv, Node("Add", "shift", ("sum_before", "means"), (shifted,))]
    if relu:
        nodes.append(Node("Relu", "relu", ("shifted",), ("restored_image",)))
    graph = Graph(tuple(nodes), {**constants, "means": _random(1, outputs, 1, 1)})
    folded = fold_output_shift(graph)
    assert "Add" not in folded.operators()
    assert _largest_change(graph, folded, *size) <= 1e-6


@_few
@given(
    groups=st.sampled_from([1, 2]),
    per_channel=st.booleans(),
    behind=st.booleans(),
    size=_sizes,
)
def test_fold_scaling(groups: int, per_channel: bool, behind: bool, size: tuple[int, int]) -> None:
    first, constants = _conv("image", "features", 3, 4)
    factor = _random(1, 4, 1, 1) if per_channel else np.full((1, 1, 1, 1), 0.2, np.float32)
    value = "bent" if behind else "features"
    product = Node("Mul", "mul", (value, "factor"), ("product",))
    last, more = _conv("product", "restored_image", 4, 6, 3, groups)
    bend = [Node("Relu", "relu", ("features",), ("bent",))] if behind else []
    graph = Graph((first, *bend, product, last), {**constants, **more, "factor": factor})
    folded = fold_scaling(graph.check())
    assert "Mul" not in folded.check().operators()
    assert _largest_change(graph, folded, *size) <= 1e-5


@_few
@given(
    slopes=st.lists(st.floats(-2, 4, width=32), min_size=4, max_size=4),
    groups=st.sampled_from([1, 2]),
    size=_sizes,
)
def test_flatten_slopes(slopes: list[float], groups: int, size: tuple[int, int]) -> None:
    first, constants = _conv("image", "features", 3, 4)
    bend = Node("PRelu", "prelu", ("features", "slopes"), ("bent",))
    last, more = _conv("bent", "restored_image", 4, 6, 3, groups)
    graph = Graph((first, bend, last), {**constants, **more, "slopes": np.float32(slopes)})
    flat = flatten_slopes(graph.check()).check()
    assert flat.operators() == graph.operators()
    (after,) = (node for node in flat.nodes if node.op == "PRelu")
    assert flat.constants[after.inputs[1]].max() <= 1
    assert _largest_change(graph, flat, *size) <= 2e-6


def test_steep_slopes_stay_where_no_convolution_can_take_them_over() -> None:
    first, constants = _conv("image", "features", 3, 3)
    nodes = (
        first,
        Node("PRelu", "prelu", ("features", "slopes"), ("bent",)),
        Node("Add", "add", ("bent", "features"), ("restored_image",)),
    )
    graph = Graph(nodes, {**constants, "slopes": np.float32([0.1, 2, 3])})
    assert flatten_slopes(graph) is graph


def test_a_scaling_stays_where_no_convolution_can_take_it_over() -> None:
    first, constants = _conv("image", "features", 3, 3)
    nodes = (
        first,
        Node("Mul", "mul", ("features", "factor"), ("product",)),
        Node("Add", "add", ("product", "features"), ("restored_image",)),
    )
    graph = Graph(nodes, {**constants, "factor": _random(1, 3, 1, 1)})
    assert fold_scaling(graph) == graph


@_few
@given(
    factor=st.integers(2, 4),
    kernel=st.sampled_from([1, 3, 5]),
    groups=st.sampled_from([1, 2]),
    size=_sizes,
)
def test_convolve_before_resizes(
    factor: int, kernel: int, groups: int, size: tuple[int, int]
) -> None:
    first, constants = _conv("image", "features", 3, 4)
    resize = Node("Resize", "resize", ("features",), ("large",), {"factor": factor})
    last, more = _conv("large", "restored_image", 4, 6, kernel, groups)
    graph = Graph((first, resize, last), {**constants, **more})
    moved = convolve_before_resizes(graph.check())
    assert moved.check().operators() == {"Conv": 2, "DepthToSpace": 1}
    assert moved.scale == factor
    if kernel > 1:
        assert moved.multadds(720, 720) <= graph.multadds(720, 720)
    assert _largest_change(graph, moved, *size) <= 5e-5  # of sums of up to twenty


@_few
@given(factor=st.integers(2, 4), size=_sizes)
def test_resize_by_shuffles(factor: int, size: tuple[int, int]) -> None:
    first, constants = _conv("image", "features", 3, 4)
    last, more = _conv("large", "enlarged", 4, 3)
    nodes = (
        first,
        Node("Resize", "resize", ("features",), ("large",), {"factor": factor}),
        Node("Resize", "resize", ("image",), ("pixels",), {"factor": factor}),
        last,
        Node("Add", "add", ("enlarged", "pixels"), ("restored_image",)),
    )
    graph = Graph(nodes, {**constants, **more}).check()
    for rewrites in (["resize_by_shuffles"], ["convolve_before_resizes", "resize_by_shuffles"]):
        shuffled = lower(graph, rewrites)
        assert shuffled.operators()["DepthToSpace"] == 2
        assert "Resize" not in shuffled.operators()
        assert shuffled.halo() == graph.halo()
        assert _largest_change(graph, shuffled, *size) <= 1e-5


@_few
@given(
    factor=st.integers(2, 4), mode=st.sampled_from(["linear", "cubic"]), size=_sizes,
    channels=st.integers(1, 3),
)  # fmt: skip
def test_interpolate_by_convolutions(
    factor: int, mode: str, size: tuple[int, int], channels: int
) -> None:
    conv, constants = _conv("image", "features", 3, channels)
    attributes = {"factor": factor, "mode": mode}
    larger = Node("Interpolate", "larger", ("features",), ("restored_image",), attributes)
    graph = Graph((conv, larger), constants).check()
    convolved = interpolate_by_convolutions(graph).check()
    assert set(convolved.operators()) == {"Conv", "DepthToSpace", "GeneralConv", "Pad"}
    assert (convolved.scale, convolved.halo()) == (graph.scale, graph.halo())
    assert _largest_change(graph, convolved, *size) <= 1e-5


def test_a_shift_stays_where_the_unshifted_value_is_read_too() -> None:
    conv, constants = _conv("image", "plain", 3, 3)
    nodes = (
        conv,
        Node("Add", "shift", ("plain", "means"), ("shifted",)),
        Node("Mul", "mul", ("plain", "shifted"), ("restored_image",)),
    )
    graph = Graph(nodes, {**constants, "means": _random(1, 3, 1, 1)})
    assert fold_output_shift(graph) == graph


@_few
@given(kernel=st.sampled_from([1, 3, 5]), entries=st.integers(1, 2), size=_sizes)
def test_carry_mean_as_channel(kernel: int, entries: int, size: tuple[int, int]) -> None:
    nodes = [Node("Sub", "mean", ("image", "means"), ("centred",))]
    constants = {"means": _random(1, 3, 1, 1)}
    for index in range(entries):
        conv, more = _conv("centred", f"features{index}", 3, 4, kernel)
        nodes.append(conv)
        constants |= more
    values = tuple(f"features{index}" for index in range(entries))
    nodes.append(Node("Concat", "concat", values, ("restored_image",)))
    graph = Graph(tuple(nodes), constants)
    carried = carry_mean_as_channel(graph)
    assert "Sub" not in carried.operators()
    assert _largest_change(graph, carried, *size) <= 1e-5


def test_the_picture_and_its_channel_of_ones_pass_exactly() -> None:
    # Means that are no multiples of 1/255: an 8-bit difference from them could not be exact.
    conv, constants = _conv("centred", "restored_image", 3, 4)
    means = np.float32([0.4488, 0.4371, 0.4040]).reshape(1, 3, 1, 1)
    subtraction = Node("Sub", "mean", ("image", "means"), ("centred",))
    carried = carry_mean_as_channel(Graph((subtraction, conv), {**constants, "means": means}))
    shown = activations_of(carried, torch.rand(1, 3, 2, 2))
    assert carried.origin("image/ones") == "image"
    torch.testing.assert_close(shown["image/ones"][:, :3], shown["image"], rtol=0, atol=0)
    assert shown["image/ones"][:, 3].unique().tolist() == [1]


@pytest.mark.parametrize("case", ["sum", "groups", "output"])
def test_a_mean_that_not_only_plain_convolutions_read_is_refused(case: str) -> None:
    subtraction = Node("Sub", "normalize", ("image", "means"), ("centred",))
    conv, constants = _conv("centred", "features", 3, 3, groups=3 if case == "groups" else 1)
    reader = "centred" if case == "sum" else "features"
    nodes = (subtraction, conv, Node("Add", "skip", ("features", reader), ("restored_image",)))
    graph = Graph(nodes, {**constants, "means": _random(1, 3, 1, 1)})
    if case == "output":
        graph = dataclasses.replace(graph, nodes=(subtraction,), output="centred")
    with pytest.raises(CannotLower, match=r"normalize: .*choose a profile without"):
        carry_mean_as_channel(graph)


def test_a_difference_from_something_else_than_means_is_left_alone() -> None:
    conv, constants = _conv("image", "noise", 3, 3)
    nodes = (conv, Node("Sub", "residual", ("image", "noise"), ("restored_image",)))
    graph = Graph(nodes, constants)
    assert carry_mean_as_channel(graph) is graph


@_few
@given(groups=st.sampled_from([1, 2, 3, 4]), channels=st.integers(1, 3), size=_sizes)
def test_make_convolutions_dense(groups: int, channels: int, size: tuple[int, int]) -> None:
    first, constants = _conv("image", "features", 3, 2 * groups, 1)
    second, more = _conv("features", "restored_image", 2 * groups, channels * groups, 3, groups)
    graph = Graph((first, second), {**constants, **more})
    dense = make_convolutions_dense(graph)
    assert {node.integer("groups") for node in dense.nodes} == {1}
    assert _largest_change(graph, dense, *size) <= 1e-5


@_few
@given(groups=st.sampled_from([(2, 2), (2, 4), (3, 3), (1, 2)]), shared=st.booleans(), size=_sizes)
def test_split_grouped_convolutions(
    groups: tuple[int, int], shared: bool, size: tuple[int, int]
) -> None:
    """A PRelu and a Relu between grouped convolutions; ``shared`` values are read whole, too."""
    entry, constants = _conv("image", "features", 3, 12)
    first, more = _conv("features", "wide", 12, 12, 3, groups[0])
    second, rest = _conv("bent", "narrow", 12, 12, 3, groups[1])
    last, ends = _conv("both", "restored_image", 12, 3, 1)
    nodes = (
        *(entry, first, Node("PRelu", "prelu", ("wide", "slopes"), ("bent",)), second),
        Node("Relu", "relu", ("narrow",), ("positive",)),
        Node("Add", "add", ("positive", "bent" if shared else "features"), ("both",)),
        last,
    )
    slopes = np.linspace(-0.5, 1, 12, dtype=np.float32)
    graph = Graph(nodes, {**constants, **more, **rest, **ends, "slopes": slopes})
    split = split_grouped_convolutions(graph)
    assert {one.integer("groups") for one in split.nodes if one.op == "Conv"} == {1}
    assert split.operators()["Split"] == len({*groups} - {1})
    assert split.multadds(64, 64) == graph.multadds(64, 64)
    assert _largest_change(graph, split, *size) <= 2e-5
    assert split_grouped_convolutions(split) == split


@_few
@given(channels=st.integers(2, 9), groups=st.sampled_from([1, 2, 3]), size=_sizes)
def test_groups_that_do_not_fill_slices_of_four_are_split(
    channels: int, groups: int, size: tuple[int, int]
) -> None:
    entry, constants = _conv("image", "features", 3, channels * groups, 1)
    grouped, more = _conv("features", "wide", channels * groups, 4 * groups, 3, groups)
    last, rest = _conv("wide", "restored_image", 4 * groups, 3, 3)
    graph = Graph((entry, grouped, last), {**constants, **more, **rest})
    split = split_unaligned_groups(graph)
    if groups == 1 or channels % 4 == 0:
        assert split == graph
        return
    assert split.operators() == {"Concat": 1, "Conv": 2 + groups, "Split": 1}
    assert split.multadds(64, 64) == graph.multadds(64, 64)
    assert _largest_change(graph, split, *size) <= 2e-5


def test_branches_of_an_output_are_joined_and_depthwise_convolutions_stay() -> None:
    depthwise, constants = _conv("image", "filtered", 3, 3, groups=3)
    entry, more = _conv("filtered", "features", 3, 6)
    exit_, rest = _conv("features", "restored_image", 6, 3, groups=3)
    graph = Graph((depthwise, entry, exit_), {**constants, **more, **rest})
    split = split_grouped_convolutions(graph)
    assert split.operators() == {"Concat": 1, "Conv": 5, "Split": 1}
    assert split.nodes[0] == depthwise and split.nodes[-1].outputs == ("restored_image",)
    assert _largest_change(graph, split, 4, 5) <= 1e-5


def test_a_dense_kernel_has_its_groups_on_the_diagonal() -> None:
    weight = np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1, 1)
    expected = [[1, 0], [2, 0], [0, 3], [0, 4]]
    assert block_diagonal(weight, 2)[..., 0, 0].tolist() == expected


@_few
@given(kernel=st.sampled_from([1, 3, 5]), groups=st.sampled_from([1, 2]), size=_sizes)
def test_convolve_before_shuffles(kernel: int, groups: int, size: tuple[int, int]) -> None:
    upsampler = _upsampler(12, 2, groups)
    last, constants = _conv("large", "restored_image", 12, 3, kernel)
    graph = Graph((*upsampler.nodes[:-1], last), {**upsampler.constants, **constants})
    moved = convolve_before_shuffles(graph)
    assert [node.op for node in moved.nodes[-2:]] == ["Conv", "DepthToSpace"]
    assert {moved.sizes()[node.output] for node in moved.nodes if node.op == "Conv"} == {PICTURE}
    assert _largest_change(graph, moved, *size) <= 5e-5  # Outputs are as large as 30.
    assert convolve_before_shuffles(moved) == moved


def _gated(size: int = 1, read_twice: bool = False) -> Graph:
    """Return features multiplied by gates, a convolution and a ReLU of the features' averages."""
    first, constants = _conv("image", "features", 3, 6)
    squeeze, more = _conv("mean", "squeezed", 6, 6, size, 2)
    last, rest = _conv("weighed", "restored_image", 6, 3)
    nodes = (
        first,
        Node("GlobalAveragePool", "pool", ("features",), ("mean",)),
        squeeze,
        Node("Relu", "relu", ("squeezed",), ("positive",)),
        Node("Mul", "gate", ("features", "mean" if read_twice else "positive"), ("weighed",)),
        last,
    )
    return Graph(nodes, {**constants, **more, **rest})


@_few
@given(size=_sizes)
def test_convolve_before_pooling(size: tuple[int, int]) -> None:
    graph = _gated()
    moved = convolve_before_pooling(graph)
    assert [node.op for node in moved.nodes[:4]] == ["Conv", "Conv", "GlobalAveragePool", "Relu"]
    # The convolution's output has the name of the average, and its origin says that it was added.
    assert moved.origins == {"mean": "mean"} and moved.sizes()["mean"] == PICTURE
    assert moved.sizes()["squeezed"] == POOLED
    assert _largest_change(graph, moved, *size) <= 1e-5
    assert convolve_before_pooling(moved) == moved


def test_averages_that_more_than_a_pointwise_convolution_reads_stay() -> None:
    for graph in (_gated(size=3), _gated(read_twice=True)):
        assert convolve_before_pooling(graph).nodes == graph.nodes


@given(
    block=st.integers(2, 4), kernel=st.sampled_from([1, 3, 5, 7]), seed=st.integers(0, 2**32 - 1)
)
def test_a_kernel_of_blocks_holds_every_weight_once_for_each_pixel(
    block: int, kernel: int, seed: int
) -> None:
    weight = np.random.default_rng(seed).normal(size=(2, 3, kernel, kernel)).astype(np.float32)
    rows = block_kernel(weight, block).reshape(2, block**2, -1)
    for of_output, row in zip(weight.reshape(2, -1), rows, strict=True):
        for pixel in row:
            assert sorted(pixel[pixel != 0]) == sorted(of_output)


def test_convolutions_that_must_follow_their_shuffle_do() -> None:
    many = _upsampler(11, 2)  # 4 · 3 colours are more than 11 channels.
    of_three = _upsampler(30, 3)
    dcr = _upsampler(12, 2, mode="DCR")
    last, constants = _conv("large", "sums", 12, 3)
    rest = _upsampler(12, 2)
    relu = Node("Relu", "relu", ("sums",), ("restored_image",))
    with_relu = Graph((*rest.nodes[:-1], last, relu), {**rest.constants, **constants})
    pooled = Node("GlobalAveragePool", "pool", ("large",), ("mean",))
    read_twice = dataclasses.replace(rest, nodes=(*rest.nodes[:-1], pooled, rest.nodes[-1]))
    for graph in (many, of_three, dcr, with_relu, read_twice):
        assert convolve_before_shuffles(graph).nodes == graph.nodes


@_few
@given(
    groups=st.sampled_from([2, 4]), channels=st.integers(1, 2), block=st.integers(2, 3), size=_sizes
)
def test_split_shuffled_convolutions(
    groups: int, channels: int, block: int, size: tuple[int, int]
) -> None:
    graph = _upsampler(channels * groups, block, groups)
    split = split_shuffled_convolutions(graph)
    assert split.operators()["DepthToSpace"] == groups and split.operators()["Split"] == 1
    assert all(node.integer("groups") == 1 for node in split.nodes if node.op == "Conv")
    assert _largest_change(graph, split, *size) <= 1e-5
    # Now every shuffle has a convolution whose channels may be permuted.
    assert _largest_change(graph, use_dcr_shuffles(split), *size) <= 1e-5


@_few
@given(channels=st.integers(1, 5), block=st.integers(2, 4), size=_sizes)
def test_use_dcr_shuffles(channels: int, block: int, size: tuple[int, int]) -> None:
    graph = _upsampler(channels, block)
    permuted = use_dcr_shuffles(graph)
    modes = {node.attributes["mode"] for node in permuted.nodes if node.op == "DepthToSpace"}
    assert modes == {"DCR"}
    assert _largest_change(graph, permuted, *size) <= 1e-5
    assert use_dcr_shuffles(permuted) == permuted


@_few
@given(channels=st.integers(1, 5), block=st.integers(2, 4), size=_sizes)
def test_join_rows_of_shuffles(channels: int, block: int, size: tuple[int, int]) -> None:
    graph = _upsampler(channels, block)
    joined = join_rows_of_shuffles(graph)
    modes = {node.attributes["mode"] for node in joined.nodes if node.op == "DepthToSpace"}
    assert modes == {"ROWS"}
    assert _largest_change(graph, joined, *size) <= 1e-5


@_few
@given(channels=st.integers(1, 3), block=st.integers(2, 3), size=_sizes)
def test_convolve_for_shuffles(channels: int, block: int, size: tuple[int, int]) -> None:
    wide = channels * block**2
    first, constants = _conv("image", "first", 3, wide)
    second, more = _conv("image", "second", 3, wide, 1)
    add = Node("Add", "add", ("first", "second"), ("sum",))
    last, rest = _conv("large", "restored_image", channels, 3)
    nodes = (first, second, add, _shuffle("sum", "large", block), last)
    graph = Graph(nodes, {**constants, **more, **rest})
    ready = use_dcr_shuffles(convolve_for_shuffles(graph)).check()
    assert [node.attributes.get("mode") for node in ready.nodes if node.op == "DepthToSpace"] == [
        "DCR"
    ]
    assert _largest_change(graph, ready, *size) <= 1e-5
    whole = _upsampler(channels, block)
    assert convolve_for_shuffles(whole) == whole  # It has a convolution.


def test_dcr_order_matches_a_case_done_by_hand() -> None:
    # C = 2, r = 2: CRD stores c0(00 01 10 11) c1(00 01 10 11); DCR wants 00(c0 c1) 01(c0 c1) …
    assert dcr_order(2, 2).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@_few
@given(channels=st.integers(1, 4), size=_sizes)
def test_use_transposed_convolutions(channels: int, size: tuple[int, int]) -> None:
    block = 2
    graph = _upsampler(channels, block)
    transposed = use_transposed_convolutions(graph)
    (node,) = (one for one in transposed.nodes if one.op == "ConvTranspose")
    assert "DepthToSpace" not in transposed.operators()
    kernel = transposed.constants[node.inputs[1]]
    assert set(np.unique(kernel)) <= {0.0, 1.0} and kernel.sum() == channels * block**2
    assert _largest_change(graph, transposed, *size) <= 1e-6


@pytest.mark.parametrize("model", ["carn", "carn-m"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_changes_no_output_of_a_network(
    profile: str, precision: Any, model: str, captured: Capture, picture: Picture
) -> None:
    graph = captured(model, 4).graph
    lowered = lower(graph, PROFILES[profile].rewrites(precision))
    for size in [(9, 12), (1, 1)]:
        assert _change(graph, lowered, torch.from_numpy(picture(*size))) <= 1e-5
    assert (lowered.input, lowered.output, lowered.scale) == (graph.input, graph.output, 4)


@pytest.mark.parametrize(
    "rewrite",
    sorted(
        set(REWRITES)
        - {"use_dcr_shuffles", "join_rows_of_shuffles"}
        - {"fold_template_bank", "convolve_before_pooling", "split_signs"}
        - {"fold_scaling", "convolve_before_resizes", "resize_by_shuffles", "flatten_slopes"}
        - {"convolve_for_shuffles", "interpolate_by_convolutions", "transposed_by_shuffles"}
        - {"convolve_blocks", "pad_before_convolutions", "split_unaligned_groups"}
    ),
)
def test_each_rewrite_alone_changes_no_output_of_carn_m(
    rewrite: str, captured: Capture, picture: Picture
) -> None:
    graph, image = captured("carn-m", 4).graph, torch.from_numpy(picture(7, 5))
    lowered = lower(graph, [rewrite])
    assert lowered.nodes != graph.nodes
    same_operators = {"make_convolutions_dense", "convolve_before_shuffles"}
    assert lowered.operators() != graph.operators() or rewrite in same_operators
    assert _change(graph, lowered, image) <= 1e-5


def test_a_grouped_convolution_before_a_shuffle_cannot_be_permuted(captured: Capture) -> None:
    with pytest.raises(CannotLower, match=r"^upsampler\.0: .* 4 groups .* dense or split it"):
        use_dcr_shuffles(captured("carn-m", 4).graph)


@pytest.mark.parametrize("rewrite", [use_dcr_shuffles, split_shuffled_convolutions])
def test_a_shuffle_without_a_convolution_of_its_own_is_refused(
    rewrite: Callable[[Graph], Graph],
) -> None:
    concat = Node("Concat", "concat", ("image",) * 4, ("wide",))
    with pytest.raises(CannotLower, match=r"shuffle: a shuffle must be fed by .*; found Concat"):
        rewrite(Graph((concat, _shuffle("wide", "restored_image", 2)), {}))
    # Here a convolution feeds it, but something else reads the same channels in their old order.
    conv, constants = _conv("image", "wide", 3, 12)
    second = Node("GlobalAveragePool", "pool", ("wide",), ("mean",))
    nodes = (conv, second, _shuffle("wide", "restored_image", 2))
    with pytest.raises(CannotLower, match="found an activation that other nodes read too"):
        rewrite(Graph(nodes, constants))


def test_groups_that_cut_through_the_channels_of_a_shuffle_are_not_split() -> None:
    # Two groups of two channels: the shuffle's one channel takes all four.
    with pytest.raises(CannotLower, match=r"wide: the 2 groups .* make it dense"):
        split_shuffled_convolutions(_upsampler(1, 2, groups=2))
    # In DCR order every channel of the shuffle takes from all groups.
    with pytest.raises(CannotLower, match=r"wide: the 2 groups .* make it dense"):
        split_shuffled_convolutions(_upsampler(2, 2, groups=2, mode="DCR"))


def test_only_crd_shuffles_become_transposed_convolutions() -> None:
    with pytest.raises(CannotLower, match="only CRD shuffles"):
        use_transposed_convolutions(_upsampler(2, 2, mode="DCR"))


def test_strides_of_transposed_convolutions_are_at_most_two() -> None:
    graph = _upsampler(2, 3)
    assert use_transposed_convolutions(graph).nodes == graph.nodes


def test_profiles_name_existing_rewrites() -> None:
    for profile in PROFILES.values():
        assert {*profile.rewrites("float16"), *profile.rewrites("int8")} <= set(REWRITES)
    assert profile_named("ort-cpu").format == "onnx"
    with pytest.raises(UserError, match="abacus: no such target profile; choose one of litert-cpu"):
        profile_named("abacus")


def test_the_rewrite_that_breaks_a_graph_is_named_with_those_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forget_the_first(graph: Graph) -> Graph:
        return graph.with_nodes(list(graph.nodes[1:]))

    monkeypatch.setitem(REWRITES, "forget_the_first", forget_the_first)
    rewrites = ["fold_output_shift", "make_convolutions_dense", "forget_the_first"]
    with pytest.raises(
        InvalidGraph,
        match=r"the rewrite 'forget_the_first' broke the graph: wide: the Conv that makes 'wide' "
        r"reads 'features', .* \(rewrites before it: fold_output_shift, make_convolutions_dense\)",
    ):
        lower(_upsampler(4, 2), [*rewrites, "use_dcr_shuffles"])
