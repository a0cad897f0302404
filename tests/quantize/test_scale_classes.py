"""Values that one operator only moves share a scale; pixels keep theirs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from quantize.scale_classes import (
    Concatenations,
    ScaleClasses,
    held_values,
    rectified,
    scale_classes,
)

_WEIGHTS = {"weight": np.ones((4, 4, 1, 1), np.float32), "bias": np.zeros(4, np.float32)}


def _conv(source: str, output: str) -> Node:
    return Node("Conv", output, (source, "weight", "bias"), (output,), {"groups": 1})


def _concat(output: str, *inputs: str) -> Node:
    return Node("Concat", output, inputs, (output,))


def _shuffle(source: str, output: str) -> Node:
    return Node("DepthToSpace", output, (source,), (output,), {"block": 2, "mode": "CRD"})


def _graph(*nodes: Node) -> Graph:
    # Channel counts do not matter here: nothing is run.
    return Graph(nodes, _WEIGHTS)


def _class_of(classes: ScaleClasses, value: str) -> set[str]:
    return next(set(members) for members in classes.classes if value in members)


@pytest.fixture(scope="module")
def lowered(graph: Graph) -> Graph:
    return lower(graph, QUANTIZED_FORM)


def test_tied_concatenations_share_the_scale_of_all_their_inputs(lowered: Graph) -> None:
    classes = scale_classes(lowered, "tied")

    assert classes.requantized == ()
    assert set(classes.pixels) == {"image", "restored_image"}
    for node in lowered.nodes:
        if node.op in {"Concat", "DepthToSpace"}:
            assert {*node.inputs, *node.outputs} <= _class_of(classes, node.output)


@pytest.mark.parametrize("concatenations", ["tied", "requantized"])
def test_every_held_value_is_in_one_class(lowered: Graph, concatenations: Concatenations) -> None:
    classes = scale_classes(lowered, concatenations)

    listed = [value for members in (*classes.classes, classes.pixels) for value in members]
    assert sorted(listed) == sorted(set(held_values(lowered)) - {"image/ones"})


def test_requantized_inputs_leave_the_class_of_the_concatenation(lowered: Graph) -> None:
    classes = scale_classes(lowered, "requantized")

    concats = [node for node in lowered.nodes if node.op == "Concat"]
    assert classes.requantized
    for node in concats:
        for value in node.inputs:
            apart = (value, node.output) in classes.requantized
            read_elsewhere = any(reader.op != "Concat" for reader in lowered.consumers(value))
            assert apart >= read_elsewhere
            assert apart == (value not in _class_of(classes, node.output))


def test_a_cascade_has_one_scale_and_two_cascades_have_two() -> None:
    nodes = [
        _conv("image", "a"),
        _conv("a", "b"),
        _concat("one", "a", "b"),
        _conv("one", "c"),
        _concat("two", "a", "b", "c"),
        _conv("two", "d"),
        _concat("other", "a", "d"),
        _conv("other", "restored_image"),
    ]
    classes = scale_classes(_graph(*nodes), "requantized")

    assert classes.requantized == (("a", "one"), ("a", "two"), ("a", "other"))
    assert _class_of(classes, "one") == {"one", "two", "b", "c"}
    assert _class_of(classes, "other") == {"other", "d"}
    assert _class_of(classes, "a") == {"a"}


def test_shuffles_and_splits_share_their_scale() -> None:
    split = Node("Split", "split", ("a",), ("left", "right"), {"sizes": (2, 2)})
    nodes = [_conv("image", "a"), split, _conv("left", "c"), _shuffle("c", "d")]
    graph = _graph(*nodes, _conv("d", "e"), _conv("right", "restored_image"))

    classes = scale_classes(graph, "requantized")

    assert _class_of(classes, "a") == {"a", "left", "right"}
    assert _class_of(classes, "c") == {"c", "d"}
    assert _class_of(classes, "e") == {"e"}


def test_what_is_shuffled_into_the_output_has_the_scale_of_pixels() -> None:
    nodes = [_conv("image", "a"), _conv("a", "b"), _shuffle("b", "restored_image")]

    classes = scale_classes(_graph(*nodes), "tied")

    assert set(classes.pixels) == {"image", "b", "restored_image"}
    assert classes.classes == (("a",),)


@pytest.mark.parametrize("concatenations", ["tied", "requantized"])
def test_a_picture_is_requantized_where_it_joins_features(concatenations: Concatenations) -> None:
    nodes = [_conv("image", "a"), _concat("both", "a", "image"), _conv("both", "restored_image")]

    classes = scale_classes(_graph(*nodes), concatenations)

    assert classes.requantized == (("image", "both"),)
    assert set(classes.pixels) == {"image", "restored_image"}
    assert _class_of(classes, "both") == {"a", "both"}


def test_features_that_are_concatenated_into_the_output() -> None:
    nodes = [_conv("image", "a"), _conv("a", "b"), _concat("restored_image", "a", "b", "image")]

    classes = scale_classes(_graph(*nodes), "tied")

    # 'a' is also read by a convolution, where it keeps its own scale; 'b' and the picture are
    # pixels already.
    assert classes.requantized == (("a", "restored_image"),)
    assert set(classes.pixels) == {"image", "b", "restored_image"}
    assert classes.classes == (("a",),)


def test_a_convolution_that_fuses_its_relu_is_not_held() -> None:
    relu = Node("Relu", "relu", ("a",), ("r",))
    graph = _graph(_conv("image", "a"), relu, _conv("r", "restored_image"))

    assert held_values(graph) == ["image", "r", "restored_image"]


def test_values_of_rewrites_belong_to_their_origin() -> None:
    nodes = [_conv("image", "copy"), _conv("copy", "a"), _conv("a", "restored_image")]
    graph = dataclasses.replace(_graph(*nodes), origins={"copy": "image"})

    classes = scale_classes(graph, "tied")

    assert classes.pixels == ("image", "restored_image")
    assert classes.classes == (("a",),)


def test_what_only_a_relu_reads_has_the_scale_of_its_result() -> None:
    pooled = Node("GlobalAveragePool", "pool", ("a",), ("mean",))
    relu = Node("Relu", "relu", ("mean",), ("positive",))
    gate = Node("Mul", "gate", ("a", "positive"), ("weighed",))
    end = _conv("weighed", "restored_image")
    graph = _graph(_conv("image", "a"), pooled, relu, gate, end)

    assert rectified(graph) == {"mean": "positive"}
    assert _class_of(scale_classes(graph, "tied"), "mean") == {"mean", "positive"}
    both = Node("Add", "both", ("weighed", "mean"), ("sum",))
    read_twice = _graph(*graph.nodes[:-1], both, _conv("sum", "restored_image"))
    assert rectified(read_twice) == {}
    assert _class_of(scale_classes(read_twice, "tied"), "mean") == {"mean"}
