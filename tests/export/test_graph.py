"""The graph: its questions about sizes and reach, answered by torch itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import CannotLower, InvalidGraph
from export.execution import Interpreter, activations_of, execute
from export.graph import Graph, Node
from export.sampling import PICTURE, POOLED

Capture = Callable[[str, int], Any]


# Layers of random networks: a convolution's kernel size, or a shuffle's factor after one.
_LAYERS = st.lists(
    st.one_of(
        st.tuples(st.just("conv"), st.sampled_from([1, 3, 5])),
        st.tuples(st.just("shuffle"), st.sampled_from([2, 3])),
        st.tuples(st.just("transposed"), st.just(2)),
        st.tuples(st.just("residual"), st.sampled_from([1, 3])),
    ),
    min_size=1,
    max_size=5,
).filter(lambda layers: np.prod([f for kind, f in layers if kind in {"shuffle", "transposed"}]) < 9)


class _Stack:
    """Builds a graph of positive weights, so that no influence can cancel out."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.value, self.channels = "image", 3

    def add(self, op: str, inputs: tuple[str, ...], **attributes: Any) -> None:
        output = f"value{len(self.nodes)}"
        self.nodes.append(Node(op, op, inputs, (output,), attributes))
        self.value = output

    def convolve(self, op: str, shape: tuple[int, ...], outputs: int, **attributes: Any) -> None:
        names = (f"weight{len(self.nodes)}", f"bias{len(self.nodes)}")
        self.constants[names[0]] = np.full(shape, 1 / np.prod(shape[1:]), np.float32)
        self.constants[names[1]] = np.zeros(outputs, np.float32)
        self.add(op, (self.value, *names), **attributes)
        self.channels = outputs

    def layer(self, kind: str, number: int) -> None:
        channels = self.channels
        if kind == "conv":
            self.convolve("Conv", (2, channels, number, number), 2, groups=1)
        elif kind == "residual":
            source = self.value
            self.convolve("Conv", (channels, channels, number, number), channels, groups=1)
            self.add("Add", (self.value, source))
            self.add("Relu", (self.value,))
        elif kind == "shuffle":
            self.convolve("Conv", (2 * number**2, channels, 3, 3), 2 * number**2, groups=1)
            self.add("DepthToSpace", (self.value,), block=number, mode="CRD")
            self.channels = 2
        else:
            shape = (channels, 2, number, number)
            self.convolve("ConvTranspose", shape, 2, stride=number, groups=1, crops=(0, 0, 0, 0))

    def graph(self) -> Graph:
        return Graph(tuple(self.nodes), self.constants, "image", self.value)


def _random_graph(layers: list[tuple[str, int]]) -> Graph:
    stack = _Stack()
    for kind, number in layers:
        stack.layer(kind, number)
    return stack.graph()


@settings(deadline=None, max_examples=40)
@given(layers=_LAYERS)
def test_a_pixel_reaches_exactly_as_far_as_the_halo(layers: list[tuple[str, int]]) -> None:
    graph = _random_graph(layers)
    halo, scale = graph.halo(), graph.scale
    centre = halo + 1
    constants = {name: torch.from_numpy(a).double() for name, a in graph.constants.items()}
    image = torch.ones(1, 3, 2 * centre + 1, 2 * centre + 1, dtype=torch.float64)
    touched = image.clone()
    touched[..., centre, centre] += 1
    difference = execute(graph, touched, constants) - execute(graph, image, constants)
    rows = torch.nonzero(difference.abs().amax((0, 1, 3))).ravel() // scale
    columns = torch.nonzero(difference.abs().amax((0, 1, 2))).ravel() // scale
    # Not a pixel further, so that tiles with this halo are right; not one less, so that a smaller
    # halo would be wrong.
    for reached in (rows, columns):
        assert reached.min() == centre - halo and reached.max() == centre + halo


@settings(deadline=None, max_examples=25)
@given(layers=_LAYERS, height=st.integers(1, 5), width=st.integers(1, 5))
def test_channels_and_sizes_are_those_of_the_tensors(
    layers: list[tuple[str, int]], height: int, width: int
) -> None:
    graph = _random_graph(layers)
    values = activations_of(graph, torch.rand(1, 3, height, width))
    channels, sizes = graph.channels(), graph.sizes()
    assert values[graph.output].shape[2:] == (graph.scale * height, graph.scale * width)
    for name, value in values.items():
        rows, columns = sizes[name]
        assert value.shape == (1, channels[name], rows.of(height), columns.of(width))


@pytest.mark.parametrize("model", ["carn", "carn-m"])
def test_the_halo_of_carn_x4_is_21(model: str, captured: Capture) -> None:
    # From the exit back: 1 fine pixel lies within 1 of the half, 1 more for the second upsampling
    # makes 2, which lie within 1 of the input; upsampling 1, body 9 · 2, entry 1.
    graph = captured(model, 4).graph
    assert (graph.halo(), graph.scale) == (21, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "halo"), [(2, 21), (3, 21)])
def test_scale_and_halo_of_the_other_scales(scale: int, halo: int, captured: Capture) -> None:
    # Entry 1, body 18, upsampling 1 and the exit's one fine pixel, which is a whole coarse one.
    graph = captured("carn", scale).graph
    assert (graph.halo(), graph.scale) == (halo, scale)


@pytest.mark.parametrize(("model", "billions"), [("carn", 90.9), ("carn-m", 32.5)])
def test_multadds_are_those_of_the_paper(model: str, billions: float, captured: Capture) -> None:
    graph = captured(model, 4).graph
    assert round(graph.multadds(1280, 720) / 1e9, 1) == billions
    layers = graph.layer_multadds(1280, 720)
    assert {node.op for node, _ in layers} == {"Conv"}
    # The exit: 1280 · 720 outputs of 3 channels from 64 · 3 · 3 values each.
    assert layers[-1][1] == 1280 * 720 * 3 * 64 * 9


def test_what_is_pooled_globally_is_one_value_for_all_pixels() -> None:
    pool = Node("GlobalAveragePool", "attention.pool", ("image",), ("mean",))
    graph = Graph((pool, Node("Mul", "m", ("image", "mean"), ("restored_image",))), {})
    assert graph.sizes() == {"image": PICTURE, "mean": POOLED, "restored_image": PICTURE}
    assert graph.pools_globally
    assert graph.halo() == 0


def test_convolutions_of_what_is_pooled_run_once_however_large_the_picture_is() -> None:
    nodes = (
        Node("GlobalAveragePool", "pool", ("image",), ("mean",)),
        Node("Conv", "gate", ("mean", "weight", "bias"), ("weights",), {"groups": 1}),
        Node("Mul", "m", ("image", "weights"), ("restored_image",)),
    )
    constants = {"weight": np.ones((3, 3, 1, 1), np.float32), "bias": np.zeros(3, np.float32)}
    assert Graph(nodes, constants).multadds(30, 20) == 3 * 3


def test_split_and_concat_keep_count_of_channels() -> None:
    graph = Graph(
        (
            Node("Split", "s", ("image",), ("one", "two"), {"sizes": (1, 2)}),
            Node("Concat", "c", ("two", "one", "two"), ("restored_image",)),
        ),
        {},
    )
    assert graph.channels() == {"image": 3, "one": 1, "two": 2, "restored_image": 5}
    assert graph.operators() == {"Concat": 1, "Split": 1}


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(CannotLower, match="head: operator 'Softmax' is not supported"):
        Node("Softmax", "head", ("image",), ("restored_image",))


def test_wrong_attributes_are_refused() -> None:
    with pytest.raises(CannotLower, match=r"up: DepthToSpace has attributes \['block'\]"):
        Node("DepthToSpace", "up", ("image",), ("restored_image",), {"block": 2})


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("LeakyRelu", {"slope": "steep"}, "slope='steep'; expected a number"),
        ("Split", {"sizes": 3}, "sizes=3; expected a tuple of integers"),
        ("Split", {"sizes": (1, 2.0)}, r"sizes=\(1, 2.0\); expected a tuple of integers"),
        ("Conv", {"groups": 1.0}, "groups=1.0; expected an integer"),
        ("Conv", {"groups": True}, "groups=True; expected an integer"),
        ("DepthToSpace", {"block": 2, "mode": 3}, "mode=3; expected a string"),
    ],
)
def test_an_attribute_of_another_type_is_refused(
    op: str, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CannotLower, match=f"^layer: {op} has {message}"):
        Node(op, "layer", ("image",), ("restored_image",), attributes)


def test_an_integer_is_a_number() -> None:
    clip = Node("Clip", "clip", ("image",), ("x",), {"minimum": 0, "maximum": 0.5})
    assert (clip.number("minimum"), clip.number("maximum")) == (0.0, 0.5)


_WEIGHT, _BIAS = np.zeros((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)


def _conv(**changed: Any) -> Graph:
    """Return a graph of one convolution to four channels, with other constants or inputs."""
    inputs = changed.pop("inputs", ("image", "w", "b"))
    groups = changed.pop("groups", 1)
    node = Node("Conv", "conv", inputs, ("restored_image",), {"groups": groups})
    return Graph((node,), {"w": _WEIGHT, "b": _BIAS, **changed})


def _one(op: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> Graph:
    constants = {"means": np.zeros((1, 3, 1, 1), np.float32), "row": np.zeros((1, 3, 1, 4))}
    pool = Node("GlobalAveragePool", "pool", ("image",), ("mean",))
    large = Node(
        "ConvTranspose",
        "up",
        ("image", "k", "c"),
        ("large",),
        {"stride": 2, "groups": 1, "crops": (0, 0, 0, 0)},
    )
    constants |= {"k": np.zeros((3, 3, 2, 2), np.float32), "c": np.zeros(3, np.float32)}
    return Graph((pool, large, Node(op, "layer", inputs, outputs, attributes)), constants, "image")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (_one("Relu", "nothing"), "reads 'nothing', which no node before it makes"),
        (_one("Relu", "y"), "reads 'y', which no node before it makes"),
        (_one("Relu", "image", outputs=("large",)), "makes 'large', which already exists"),
        (_one("Relu", "image", outputs=("image",)), "makes 'image', which already exists"),
        (_one("Relu", "image", outputs=("y", "z")), "has 2 outputs; expected 1"),
        (_one("Relu", "image", "mean"), "has 2 operands; expected 1 activations"),
        (_one("Add", "image"), "has 1 operands; expected 2 activations"),
        (_one("Concat"), "has 0 operands; expected 1 or more activations"),
        (_one("Relu", "means"), "reads the constant 'means'; expected an activation"),
        (_one("Concat", "image", "means"), "reads the constant 'means'; expected an activation"),
        (_one("Add", "means", "means"), "reads the constant 'means'; expected an activation"),
        (_one("Add", "image", "row"), r"a constant of shape \(1, 3, 1, 4\)"),
        (_one("Add", "image", "large"), "reads image, large, which are of different sizes"),
        (_one("Concat", "image", "mean"), "of different sizes"),
        (_one("DepthToSpace", "mean", block=1, mode="ZIG"), "mode ZIG; expected CRD, DCR or ROWS"),
        (_one("DepthToSpace", "image", block=2, mode="CRD"), "blocks of 2 × 2 from 3 channels"),
        (_one("DepthToSpace", "mean", block=2, mode="CRD"), "enlarges 'mean', which is one value"),
        (
            _one("Split", "image", outputs=("y", "z"), sizes=(1, 1)),
            r"reads image: sizes \(1, 1\) of 3 channels",
        ),
        (_one("Split", "image", outputs=("y", "z"), sizes=(1, 1, 1)), "has 2 outputs; expected 3"),
        (_one("Add", "image", "c"), r"a constant of shape \(3,\)"),
        (_conv(inputs=("image", "w")), "2 operands; expected 1 activations and a constant weight"),
        (_conv(inputs=("image", "image", "b")), "the activation 'image' as its weight"),
        (_conv(w=_WEIGHT[:, :2]), r"kernel of shape \(4, 2, 3, 3\) in 1 groups on 3 channels"),
        (_conv(w=_WEIGHT[..., :2]), r"kernel of shape \(4, 3, 3, 2\); expected .* odd k"),
        (_conv(w=_WEIGHT[..., :2, :2]), r"kernel of shape \(4, 3, 2, 2\); expected .* odd k"),
        (_conv(groups=3), "3 groups of 4 output channels"),
        (_conv(groups=0), "0 groups"),
        (_conv(b=_BIAS[:3]), r"a bias of shape \(3,\) for 4 channels"),
    ],
)
def test_a_node_that_does_not_fit_is_named_with_its_value(graph: Graph, message: str) -> None:
    with pytest.raises(InvalidGraph, match=rf"^(conv|layer): the \w+ that makes '\w+'.*{message}"):
        graph.check()


@pytest.mark.parametrize(
    ("kernel", "bias", "groups", "message"),
    [
        ((3, 2, 2), 2, 1, "expected input × output/groups × height × width"),
        ((3, 2, 2, 1), 2, 1, r"a kernel of shape \(3, 2, 2, 1\) with stride 2"),
        ((4, 2, 2, 2), 2, 1, "on 3 channels"),
        ((3, 2, 2, 2), 2, 2, "2 groups of 3 channels"),
        ((3, 2, 2, 2), 2, 3, r"a bias of shape \(2,\) for 6 channels"),
    ],
)
def test_a_transposed_convolution_fits_its_constants(
    kernel: tuple[int, ...], bias: int, groups: int, message: str
) -> None:
    attributes = {"stride": 2, "groups": groups, "crops": (0, 0, 0, 0)}
    node = Node("ConvTranspose", "up", ("image", "w", "b"), ("restored_image",), attributes)
    constants = {"w": np.zeros(kernel, np.float32), "b": np.zeros(bias, np.float32)}
    with pytest.raises(InvalidGraph, match=message):
        Graph((node,), constants).check()


def test_templates_fit_the_kernel_they_are_mixed_to() -> None:
    mix = Node("MixTemplates", "bank", ("alpha", "bank"), ("w",), {"shape": (4, 3, 3, 3)})
    graph = dataclasses.replace(_conv(), nodes=(mix, *_conv().nodes))
    constants = {"alpha": np.zeros(2), "bank": np.zeros((2, 4 * 3 * 3 * 3)), "b": _BIAS}
    assert dataclasses.replace(graph, constants=constants).check().scale == 1
    for changed in ({"alpha": np.zeros(3)}, {"bank": np.zeros((2, 9))}):
        with pytest.raises(InvalidGraph, match=r"bank: the MixTemplates .* coefficients"):
            dataclasses.replace(graph, constants=constants | changed).check()


def test_an_output_that_no_node_makes_is_named() -> None:
    with pytest.raises(InvalidGraph, match="no node makes the output 'restored_image'"):
        _one("Relu", "image").check()


def test_a_graph_that_is_whole_is_returned() -> None:
    for graph in (
        _conv(),
        _with_relu("Sub"),
        dataclasses.replace(_one("Mul", "large", "mean"), output="y"),
        dataclasses.replace(_one("Sub", "means", "large"), output="y"),
    ):
        assert graph.check() is graph


@settings(deadline=None, max_examples=25)
@given(layers=_LAYERS)
def test_random_networks_are_whole(layers: list[tuple[str, int]]) -> None:
    assert _random_graph(layers).check()


def _with_relu(op: str, *, read_twice: bool = False, is_output: bool = False) -> Graph:
    nodes = [
        Node(op, "first", ("image", "image"), ("sum",)),
        Node("Relu", "relu", ("sum",), ("positive",)),
    ]
    if read_twice:
        nodes.append(Node("Mul", "mul", ("sum", "positive"), ("product",)))
    return Graph(tuple(nodes), {}, output="sum" if is_output else nodes[-1].output)


def test_a_relu_is_fused_only_where_nothing_else_reads_the_sum() -> None:
    alone = _with_relu("Add")
    assert alone.fused_relu(alone.nodes[0]) == alone.nodes[1]
    for graph in (
        _with_relu("Add", read_twice=True),
        _with_relu("Add", is_output=True),
        _with_relu("Mul"),
    ):
        assert graph.fused_relu(graph.nodes[0]) is None


def test_with_nodes_drops_constants_that_nothing_reads() -> None:
    array = np.zeros((1, 3, 1, 1), np.float32)
    graph = Graph((Node("Add", "a", ("image", "old"), ("restored_image",)),), {"old": array})
    nodes = [Node("Add", "a", ("image", "new"), ("restored_image",))]
    changed = graph.with_nodes(nodes, {"new": array}, {"new": "old"})
    assert set(changed.constants) == {"new"} and set(graph.constants) == {"old"}


def test_what_rewrites_add_stands_for_what_was_captured() -> None:
    array = np.zeros((1, 3, 1, 1), np.float32)
    graph = Graph((Node("Add", "a", ("image", "k"), ("restored_image",)),), {"k": array})

    def adding(constant: str) -> list[Node]:
        return [Node("Add", "a", ("image", constant), ("restored_image",))]

    once = graph.with_nodes(adding("one"), {"one": array}, {"one": "k"})
    twice = once.with_nodes(adding("two"), {"two": array}, {"two": "one"})

    assert (twice.origin("two"), twice.origin("image")) == ("k", "image")
    assert twice.is_captured("image") and not twice.is_captured("two")
    assert set(twice.origins) == {"two"}  # Nothing is kept of what is gone.
    with pytest.raises(ValueError, match=r"^three: added without an origin"):
        graph.with_nodes(adding("three"), {"three": array})


def test_an_interpreter_sees_what_files_hold_and_changes_what_follows() -> None:
    seen: list[str] = []

    class Changing(Interpreter):
        def activation(self, name: str, value: torch.Tensor) -> torch.Tensor:
            seen.append(name)
            return 2 * value if name == "image" else value

        def before_relu(self, name: str, value: torch.Tensor) -> torch.Tensor:
            seen.append(f"hidden {name}")
            return value + 1

        def apply(self, node: Node, operands: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            return tuple(10 * value for value in super().apply(node, operands))

    restored = Changing(_with_relu("Add"))(torch.ones(1, 3, 2, 2))
    assert seen == ["image", "hidden sum", "positive"]
    assert restored.unique().tolist() == [10 * (10 * (2 + 2) + 1)]


def test_activations_are_those_that_files_hold_and_hidden_ones_on_request() -> None:
    graph, image = _with_relu("Add"), torch.ones(1, 3, 2, 2)
    assert list(activations_of(graph, image)) == ["image", "positive"]
    values = activations_of(graph, image, hidden=True)
    assert list(values) == ["image", "sum", "positive"] and values["sum"].unique().tolist() == [2]


def test_what_reads_the_output_further_on_does_not_take_it_away() -> None:
    nodes = (
        Node("Relu", "relu", ("image",), ("restored_image",)),
        Node("GlobalAveragePool", "pool", ("restored_image",), ("mean",)),
    )
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(execute(Graph(nodes, {}), image), image)
