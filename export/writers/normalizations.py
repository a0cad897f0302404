"""What writers have in common where they spell normalizations out: constants, axes and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.formulas import INSTANCE_NORM, NORMALIZATIONS, Formula
from export.graph import Array, Graph, Node

CHANNELS, PIXELS = (1,), (2, 3)
"""Axes of N × C × H × W."""

MEANS: Mapping[str, tuple[int, ...]] = {"MeanOfChannels": CHANNELS, "MeanOfPixels": PIXELS}
"""The axes of N × C × H × W that the means of formulas are over."""


def normalization(graph: Graph, node: Node) -> tuple[Formula, Mapping[str, Array]]:
    """Return the formula of a normalization, and the constants that it names.

    Factors and shifts are 1 × C × 1 × 1, ``averaging`` is a kernel C × C × 1 × 1.
    """
    _, scale, bias = node.inputs
    named = {"scale": scale, "bias": bias}
    planes = {name: graph.constants[of].reshape(1, -1, 1, 1) for name, of in named.items()}
    planes["epsilon"] = np.array(node.number("epsilon"), np.float32)
    if node.op != "GroupNorm":
        return NORMALIZATIONS[node.op], planes
    channels, groups = planes["scale"].shape[1], node.integer("groups")
    if groups == channels:
        return INSTANCE_NORM, planes
    size = channels // groups
    averaging = np.kron(np.eye(groups), np.full((size, size), 1 / size)).astype(np.float32)
    return NORMALIZATIONS[node.op], {**planes, "averaging": averaging[..., None, None]}


def shape_of(
    operator: str,
    operands: Sequence[tuple[Any, tuple[Any, ...]]],
    means: Mapping[str, tuple[int, ...]] = MEANS,
) -> tuple[Any, ...]:
    """Return the shape of what an operator of a formula makes, of four axes.

    Args:
        operator: The operator.
        operands: Its operands with their shapes, in which constants may have fewer axes.
        means: The axes that means are over.
    """
    (_, first), *others = operands
    if operator in means:
        return tuple(1 if axis in means[operator] else extent for axis, extent in enumerate(first))
    if operator == "Mix":
        return first
    shapes = (first, *(shape for _, shape in others))
    extents = zip(*((1,) * (4 - len(shape)) + shape for shape in shapes), strict=True)
    return tuple(next((one for one in along if one != 1), 1) for along in extents)
