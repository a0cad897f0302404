"""Biases that compensate for the mean error of int8 (see ``quantize.bias_correction``)."""

from __future__ import annotations

import dataclasses

import numpy as np

from export.graph import Graph, Node
from export.operators import CONVOLUTIONS
from export.rewrites.additions import Additions
from export.scales import ScaleTable
from runtime.errors import UserError


def with_corrected_biases(graph: Graph, table: ScaleTable) -> Graph:
    """Add the corrections of ``table`` to the biases of convolutions.

    Args:
        graph: The result of ``export.lowering.int8_form``, before all other rewrites, because some
            change the order of channels.
        table: The scales and corrections.

    Raises:
        UserError: If the table corrects another number of channels than a convolution has.
    """
    added = Additions(graph)

    def corrected(node: Node) -> Node:
        shifts = table.corrections.get(graph.origin(node.outputs[0]))
        if shifts is None or node.op not in CONVOLUTIONS:
            return node
        value, weight, bias = node.inputs
        channels = len(graph.constants[bias])
        if len(shifts) != channels:
            raise UserError(
                f"scales of {table.model} ×{table.scale} correct {len(shifts)} channels of "
                f"'{node.output}', which has {channels}; run 'reslite quantize' again"
            )
        # Convolutions that share a bias get a bias each, because their corrections differ.
        own = graph.constants[bias] + np.array(shifts, np.float32)
        name = added.constant(f"{bias}/{node.output}", own, bias)
        return dataclasses.replace(node, inputs=(value, weight, name))

    return added.graph(map(corrected, graph.nodes))
