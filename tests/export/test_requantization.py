"""Values change their scale before a concatenation where the table says so."""

from __future__ import annotations

import dataclasses

from export.graph import Graph, Node
from export.rewrites.requantization import with_requantization
from export.scales import PIXELS, Quantization, ScaleTable
from runtime.manifest import Calibration

_CAT = Quantization(0.02, -3)


def _with_two_concats(second_scale: Quantization) -> tuple[Graph, ScaleTable]:
    graph = Graph(
        (
            Node("Relu", "relu", ("image",), ("relu",)),
            Node("Concat", "one", ("image", "relu"), ("cat",)),
            Node("Concat", "two", ("relu", "cat"), ("restored_image",)),
        ),
        {},
    )
    activations = {
        "image": PIXELS,
        "cat": _CAT,
        "relu": Quantization(0.01, -128),
        "restored_image": second_scale,
    }
    pairs = (("relu", "cat"), ("relu", "restored_image"))
    nothing = Calibration((), "")
    return graph, ScaleTable("test", 1, "", "", activations, pairs, nothing)


def test_a_requantized_input_gets_a_node_and_the_scale_of_its_concatenation() -> None:
    graph, table = _with_two_concats(Quantization(0.5, 0))
    changed = with_requantization(graph, table)
    made = [node for node in changed.nodes if node.op == "Requantize"]
    assert [node.inputs for node in made] == [("relu",), ("relu",)]
    scales = [table.of(changed.origin(node.output)) for node in made]
    assert scales == [table.of("cat"), Quantization(0.5, 0)]
    concats = [node for node in changed.nodes if node.op == "Concat"]
    assert concats[0].inputs == ("image", made[0].output)
    assert concats[1].inputs == (made[1].output, "cat")


def test_two_concatenations_of_one_scale_share_a_requantized_input() -> None:
    graph, table = _with_two_concats(_CAT)
    changed = with_requantization(graph, table)
    assert changed.operators() == {"Concat": 2, "Relu": 1, "Requantize": 1}


def test_without_pairs_nothing_is_requantized() -> None:
    graph, table = _with_two_concats(_CAT)
    assert with_requantization(graph, dataclasses.replace(table, requantized=())) == graph
