"""Changes of scale before concatenations (see ``quantize.scale_classes``)."""

from __future__ import annotations

from export.graph import Graph, Node
from export.rewrites.additions import Additions
from export.scales import Quantization, ScaleTable


def with_requantization(graph: Graph, table: ScaleTable) -> Graph:
    """Insert the ``Requantize`` nodes that ``table`` asks for.

    An activation that enters several concatenations of one scale is requantized once.
    """
    wanted, added = set(table.requantized), Additions(graph)
    nodes: list[Node] = []
    made: dict[tuple[str, Quantization], str] = {}
    for node in graph.nodes:
        if node.op != "Concat":
            nodes.append(node)
            continue
        joined = graph.origin(node.output)
        target, inputs = table.of(joined), []
        for value in node.inputs:
            if (graph.origin(value), joined) not in wanted:
                inputs.append(value)
                continue
            key = (value, target)
            if key not in made:
                made[key] = added.activation(f"{node.output}/from.{value}", joined)
                nodes.append(Node("Requantize", node.name, (value,), (made[key],)))
            inputs.append(made[key])
        nodes.append(Node("Concat", node.name, tuple(inputs), node.outputs))
    return added.graph(nodes)
