"""Idioms: groups of ONNX operators that exporters write for one operator of the vocabulary.

A function of one activation is recognized by what it computes, however it is written out. The
operators that nothing reads any more are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from export.capture.editing import constant_of
from export.capture.found import Found
from export.capture.norms import (
    assigned_channels,
    channel_norm,
    factor_and_shift,
    group_norm,
    instance_norm,
    layer_norm,
    mean_of_channels,
    one_bound,
    reciprocal,
    repeated_channels,
    square,
)

Idiom = Callable[[ir.Node], Found | None]
"""Recognizes the group whose last operator is the node; None if it is no such group."""


def recognize(graph: ir.Graph) -> None:
    """Replace, in place, each group by the operator that does its work."""
    for idioms in IDIOMS:
        for node in list(graph):
            found = next((one for idiom in idioms if (one := idiom(node)) is not None), None)
            if found is not None:
                _become(node, found)
        for node in reversed(list(graph)):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                graph.remove(node, safe=True)


def _become(node: ir.Node, found: Found) -> None:
    node.op_type = found.op
    node.resize_inputs(len(found.inputs))
    for index, value in enumerate(found.inputs):
        node.replace_input_with(index, value)
    node.attributes.clear()
    for attribute in ir.convenience.convert_attributes(found.attributes):
        node.attributes.add(attribute)


def function_written_out(node: ir.Node) -> Found | None:
    """Recognize Silu, Gelu, Mish, HardSwish, HardSigmoid and Softplus written out."""
    if node.op_type not in _ELEMENTWISE or node.op_type in _FUNCTIONS:
        return None
    upstream = list(_upstream(node))
    if not any(one.op_type in _TELLING for one in upstream):
        return None
    roots = dict.fromkeys(value for one in upstream for value in _activations(one))
    for root in roots:
        computed = _computed(node.outputs[0], root)
        if computed is None:
            continue
        for op, function in _FUNCTIONS.items():
            if torch.allclose(computed, function(_SAMPLES), rtol=1e-6, atol=1e-6):
                return Found(op, [root], _ATTRIBUTES.get(op, {}))
    return None


IDIOMS: Sequence[Sequence[Idiom]] = (
    (
        function_written_out,
        square,
        one_bound,
        reciprocal,
        channel_norm,
        layer_norm,
        instance_norm,
        group_norm,
        factor_and_shift,
        assigned_channels,
        repeated_channels,
    ),
    # What is left when normalizations are known.
    (mean_of_channels,),
)
"""All idioms; of one round, the first that recognizes a group replaces it."""

# Near zero, where functions bend, and far from it, where bounds show.
_SAMPLES = torch.cat(
    [torch.linspace(-8, 8, 97, dtype=torch.float64), torch.tensor([-500.0, -50, 50, 500])]
)

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Silu": F.silu,
    "Gelu": F.gelu,
    "GeluTanh": lambda x: F.gelu(x, approximate="tanh"),
    "Mish": F.mish,
    "HardSwish": F.hardswish,
    "HardSigmoid": F.hardsigmoid,
    "Softplus": F.softplus,
}

_ATTRIBUTES: Mapping[str, Mapping[str, float]] = {"HardSigmoid": {"alpha": 1 / 6, "beta": 0.5}}
"""The attributes of ONNX's operator, where torch's function has none."""

_TELLING = frozenset({"Erf", "Tanh", "Sigmoid", "Softplus", "HardSigmoid", "Clip", "Exp", "Min"})
"""Operators one of which every function is made with."""

_DEEPEST = 12
"""Operators in a row, more than any spelling of a function has."""


def _clipped(node: ir.Node, x: Sequence[Any]) -> Tensor:
    value, low, high = (*x, None, None)[:3]
    clipped: Tensor = value if low is high is None else value.clamp(low, high)
    return clipped


def _hard_sigmoid(node: ir.Node, x: Sequence[Any]) -> Tensor:
    slope, middle = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    bent: Tensor = (slope * x[0] + middle).clamp(0, 1)
    return bent


# Operands that a node leaves out are None; only those of Clip may be.
_ELEMENTWISE: Mapping[str, Callable[[ir.Node, Sequence[Any]], Tensor]] = {
    "Add": lambda node, x: x[0] + x[1],
    "Sub": lambda node, x: x[0] - x[1],
    "Mul": lambda node, x: x[0] * x[1],
    "Div": lambda node, x: x[0] / x[1],
    "Pow": lambda node, x: x[0] ** x[1],
    "Max": lambda node, x: torch.maximum(x[0], x[1]),
    "Min": lambda node, x: torch.minimum(x[0], x[1]),
    "Where": lambda node, x: torch.where(x[0].bool(), x[1], x[2]),
    "Greater": lambda node, x: (x[0] > x[1]).double(),
    "Neg": lambda node, x: -x[0],
    "Reciprocal": lambda node, x: 1 / x[0],
    "Abs": lambda node, x: x[0].abs(),
    "Relu": lambda node, x: x[0].relu(),
    "Clip": _clipped,
    "Erf": lambda node, x: torch.erf(x[0]),
    "Exp": lambda node, x: x[0].exp(),
    "Log": lambda node, x: x[0].log(),
    "Tanh": lambda node, x: x[0].tanh(),
    "Sigmoid": lambda node, x: x[0].sigmoid(),
    "HardSigmoid": _hard_sigmoid,
    "Softplus": lambda node, x: F.softplus(x[0]),
}


def _upstream(node: ir.Node) -> Iterator[ir.Node]:
    """Iterate over ``node`` and the operators before it, nearest first, as far as functions go."""
    near, seen = [node], {node}
    for _ in range(_DEEPEST):
        yield from near
        before = [
            producer
            for one in near
            for value in _activations(one)
            if (producer := value.producer()) is not None and producer.op_type in _ELEMENTWISE
        ]
        near = [one for one in dict.fromkeys(before) if one not in seen]
        seen.update(near)


def _activations(node: ir.Node) -> list[ir.Value]:
    return [one for one in node.inputs if one is not None and constant_of(one) is None]


def _computed(value: ir.Value, root: ir.Value, depth: int = _DEEPEST) -> Tensor | None:
    """Return what ``value`` is where ``root`` is ``_SAMPLES``; None if it depends on more."""
    if value is root:
        return _SAMPLES
    if (number := constant_of(value)) is not None:
        return torch.tensor(number.item(), dtype=torch.float64) if number.size == 1 else None
    node = value.producer()
    if node is None or node.op_type not in _ELEMENTWISE or depth == 0:
        return None
    operands = [None if one is None else _computed(one, root, depth - 1) for one in node.inputs]
    missing = (one is None for one, given in zip(operands, node.inputs, strict=True) if given)
    return None if any(missing) else _ELEMENTWISE[node.op_type](node, operands)
