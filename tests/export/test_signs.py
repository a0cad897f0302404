"""Positive and negative first features apart change nothing in real numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.capture.torch_capture import capture
from export.execution import activations_of, execute
from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.signs import split_signs
from training.networks.carn import AtScale, Carn, CarnConfig

_BEFORE = [name for name in QUANTIZED_FORM if name != "split_signs"]


@pytest.mark.parametrize("efficient", [False, True])
@pytest.mark.parametrize("scale", [2, 3])
def test_a_carn_computes_the_same(efficient: bool, scale: int) -> None:
    torch.manual_seed(scale)
    config = CarnConfig(
        channels=8,
        blocks=2,
        units=2,
        groups=2 if efficient else 1,
        efficient=efficient,
        recursive=efficient,
        scales=(scale,),
    )
    graph = lower(capture(AtScale(Carn(config), scale).eval()), _BEFORE)
    image = torch.rand(1, 3, 9, 7)

    split = split_signs(graph).check()

    with torch.inference_mode():
        torch.testing.assert_close(execute(split, image), execute(graph, image), rtol=0, atol=1e-6)
        before, after = activations_of(graph, image), activations_of(split, image)
    first = next(node.output for node in graph.nodes if node.inputs[0] == "image/ones")
    positive, negative = after[f"{first}/positive"], after[f"{first}/negative"]
    assert (positive >= 0).all() and (negative >= 0).all()
    torch.testing.assert_close(positive - negative, before[first], rtol=0, atol=1e-6)
    joins = [node for node in split.nodes if node.op == "Concat"]
    assert joins and all(first not in node.inputs for node in joins)


def _joined(reader: str, relu: bool = False) -> Graph:
    random = np.random.default_rng(0)
    groups = 2 if reader == "grouped" else 1
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (3, 8 // groups, 1, 1), "c": (3,)}
    if groups == 2:
        shapes |= {"v": (4, 4, 1, 1), "c": (4,), "e": (3, 4, 1, 1), "f": (3,)}
    constants = {
        name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
    }
    nodes = [Node("Conv", "one", ("image", "w", "b"), ("x",), {"groups": 1})]
    if relu:
        nodes += [Node("Relu", "r", ("x",), ("y",))]
    first = "y" if relu else "x"
    nodes += [
        Node("Relu", "s", (first,), ("z",)),
        Node("Concat", "cat", (first, "z"), ("cat",)),
        Node(
            "Conv",
            "two",
            ("cat", "v", "c"),
            ("out" if groups == 2 else "restored_image",),
            {"groups": groups},
        ),
    ]
    if groups == 2:
        nodes += [Node("Conv", "three", ("out", "e", "f"), ("restored_image",), {"groups": 1})]
    return Graph(tuple(nodes), constants)


def test_what_a_relu_made_or_a_grouped_convolution_reads_stays() -> None:
    for graph in (_joined("whole", relu=True), _joined("grouped")):
        assert split_signs(graph) is graph
    assert split_signs(_joined("whole")) is not _joined("whole")
