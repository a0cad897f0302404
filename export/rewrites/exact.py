"""Rewrites of single operators: folded kernels and shifts, the mean as a channel, pooling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from export.errors import CannotLower
from export.graph import Array, Graph, Node
from export.operators import CONVOLUTIONS
from export.rewrites.additions import Additions


def fold_template_bank(graph: Graph) -> Graph:
    """Compute every kernel that is mixed from templates and store it as a constant."""
    mixed = {node.output: node for node in graph.nodes if node.op == "MixTemplates"}
    folded: dict[str, Array] = {}
    for output, node in mixed.items():
        coefficients, templates = (graph.constants[name].astype(np.float64) for name in node.inputs)
        kernel = (coefficients @ templates).reshape(node.shape())
        folded[output] = kernel.astype(np.float32)
    return graph.with_nodes((n for n in graph.nodes if n.op != "MixTemplates"), folded)


def fold_output_shift(graph: Graph) -> Graph:
    """Fold the addition of a constant per channel into the bias of the convolution before it."""
    shifts = {
        node.inputs[0]: node
        for node in graph.nodes
        if node.op == "Add"
        and len(node.inputs) == 2
        and graph.is_constant(node.inputs[1])
        and graph.constants[node.inputs[1]].shape[-2:] == (1, 1)
        and (producer := graph.producer(node.inputs[0])) is not None
        and producer.op in CONVOLUTIONS
        and graph.sole_consumer(node.inputs[0]) is node
    }
    added = Additions(graph)

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node in shifts.values():
                continue
            shift = shifts.get(node.outputs[0])
            if shift is None:
                yield node
                continue
            value, weight, bias = node.inputs
            shifted = graph.constants[bias] + graph.constants[shift.inputs[1]].reshape(-1)
            name = added.constant(f"{bias}+{shift.inputs[1]}", shifted, bias)
            yield dataclasses.replace(node, inputs=(value, weight, name), outputs=shift.outputs)

    return added.graph(rewritten())


def carry_mean_as_channel(graph: Graph) -> Graph:
    """Replace the subtraction of the mean colour by input channels of ones.

    An 8-bit picture minus a mean does not fit 8 bits at the picture's own scale, so quantizing the
    difference loses accuracy before the first layer. A 1×1 convolution that copies the picture and
    appends ones keeps every pixel exact; the next convolution applies the means through its
    kernel for that channel. Zero padding pads the ones too, so borders stay exact as well.

    All of it is there twice: two kernels that each do half are rounded half as coarsely, and the
    first kernel is what an 8-bit network is most sensitive to.
    """
    subtraction = next(
        (
            node
            for node in graph.nodes
            if node.op == "Sub"
            and node.inputs[0] == graph.input
            and graph.is_constant(node.inputs[1])
        ),
        None,
    )
    if subtraction is None:
        return graph
    entries = graph.consumers(subtraction.output)
    if subtraction.output == graph.output or any(
        node.op not in CONVOLUTIONS or node.integer("groups") != 1 for node in entries
    ):
        raise CannotLower(
            f"{subtraction.name}: only ungrouped convolutions may read the picture minus its mean; "
            "choose a profile without carry_mean_as_channel"
        )
    means = graph.constants[subtraction.inputs[1]].reshape(1, -1, 1, 1)
    added = Additions(graph)

    def twice(array: Array) -> Array:
        return np.concatenate([array, array])

    copied = added.activation(f"{graph.input}/ones", graph.input)
    copy = Node(
        "Conv",
        subtraction.name,
        (
            graph.input,
            added.constant(
                "append_ones.weight", twice(np.eye(4, 3, dtype=np.float32)[..., None, None])
            ),
            added.constant("append_ones.bias", twice(np.array([0, 0, 0, 1], np.float32))),
        ),
        (copied,),
        {"groups": 1},
    )

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node is subtraction:
                yield copy
            elif node in entries:
                _, weight, bias = node.inputs
                kernel = graph.constants[weight]
                ones = -(kernel * means).sum(axis=1, keepdims=True)
                half = np.concatenate([kernel, ones], axis=1) / 2
                wider = np.concatenate([half, half], axis=1)
                name = added.constant(f"{weight}/ones", wider, weight)
                yield dataclasses.replace(node, inputs=(copied, name, bias))
            else:
                yield node

    return added.graph(rewritten())


def convolve_before_pooling(graph: Graph) -> Graph:
    """Move a 1×1 convolution that alone reads a global average before the pooling.

    Both operators are linear, so that their order does not matter in real numbers. In int8 it does:
    the rounding error of an average is the same for the whole picture, while the rounding errors of
    thousands of pixels cancel when they are averaged. The activation between the two operators is
    then the convolution's output for every pixel; it takes the name of the average, also in tables
    of scales.
    """
    moved: dict[str, Node] = {}
    added = Additions(graph)
    for pool in graph.nodes:
        conv = graph.sole_consumer(pool.output) if pool.op == "GlobalAveragePool" else None
        if conv is not None and conv.op == "Conv" and graph.kernel_shape(conv)[-1] == 1:
            operands = (pool.inputs[0], *conv.inputs[1:])
            between = (added.replacement(pool.output),)
            moved[pool.output] = dataclasses.replace(conv, inputs=operands, outputs=between)
            moved[conv.output] = dataclasses.replace(pool, inputs=between, outputs=conv.outputs)
    return added.graph(moved.get(node.outputs[0], node) for node in graph.nodes)
