"""Reshapes and transposes of an ONNX model, recognized by where they move each value.

Exporters write a shuffle of pixels as Reshape, Transpose, Reshape in many spellings: PyTorch's
order of channels or TensorFlow's, N × C × H × W or N × H × W × C, in one step or in several. All of
them only move values, so a chain is run on the numbers 0, 1, 2, … and compared with what the
operators that networks mean do to these. That depends on no spelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.capture.editing import Extents, inserted, replace, shape_of

Axes = tuple[int, int, int, int]

PLANAR: Axes = (0, 1, 2, 3)
"""Axes of N × C × H × W."""

TO_PLANAR: Axes = (0, 3, 1, 2)
"""The transpose from N × H × W × C to N × C × H × W."""

FROM_PLANAR: Axes = (0, 2, 3, 1)
"""The transpose from N × C × H × W to N × H × W × C."""

_RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_MOVING = _RESHAPING | {"Transpose"}


@dataclass(frozen=True)
class Movement:
    """A movement of values that networks mean.

    Attributes:
        before: Transpose of the operand; ``PLANAR`` if there is none.
        op: ``DepthToSpace``, ``SpaceToDepth`` or an empty string for the transposes alone.
        block: Side of the blocks of pixels.
        mode: Order of the channels, CRD as in PyTorch or DCR as in TensorFlow.
        after: Transpose of the result; ``PLANAR`` if there is none.
    """

    before: Axes = PLANAR
    op: str = ""
    block: int = 1
    mode: str = "DCR"
    after: Axes = PLANAR

    def shuffled(self, planar: NDArray[Any]) -> NDArray[Any]:
        """Return N × C × H × W values as the operator moves them, between the two transposes."""
        if self.op == "DepthToSpace":
            return _depth_to_space(planar, self.block, self.mode)
        if self.op == "SpaceToDepth":
            return _space_to_depth(planar, self.block, self.mode)
        return planar

    def moved(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return values of four axes, moved."""
        return self.shuffled(value.transpose(self.before)).transpose(self.after)


def recognize_movements(graph: ir.Graph) -> None:
    """Replace chains of reshapes and transposes by the operators they amount to, in place.

    Chains that amount to no operator stay.

    Args:
        graph: A graph whose shapes are known.
    """
    for node in list(graph):
        if node.op_type in _RESHAPING:
            for source, chain in _chains(node):
                if (movement := movement_of(source, chain)) is not None:
                    _put(movement, source, node)
                    break


def movement_of(source: ir.Value, chain: Sequence[ir.Node]) -> Movement | None:
    """Return what a chain of nodes does to a value of four axes; None if nothing known."""
    start, *others = (shape_of(value) for value in (source, *(one.outputs[0] for one in chain)))
    if start is None:
        return None
    value = np.arange(math.prod(start)).reshape(start)
    target: NDArray[Any] = value
    for node, shape in zip(chain, others, strict=True):
        if shape is None:
            return None
        if node.op_type == "Transpose":
            reverse = tuple(reversed(range(target.ndim)))
            target = target.transpose(node.attributes.get_ints("perm", reverse))
        target = target.reshape(shape)
    if target.ndim != 4:
        return None
    for movement in _candidates(value.shape, target.shape):
        if np.array_equal(movement.moved(value), target):
            return movement
    return None


def _chains(last: ir.Node) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """Yield each value of four axes that ``last`` moves, nearest first, with the nodes between."""
    chain: list[ir.Node] = []
    node: ir.Node | None = last
    while node is not None and node.op_type in _MOVING:
        chain.insert(0, node)
        source = node.inputs[0]
        if source is None or source.is_initializer():
            return
        if source.shape is not None and len(source.shape) == 4:
            yield source, list(chain)
        node = source.producer()


def _candidates(source: Extents, target: Extents) -> Iterator[Movement]:
    """Yield the movements that turn one shape into another, the plainest first."""
    yield from (Movement(before) for before in (PLANAR, TO_PLANAR, FROM_PLANAR))
    for before in (PLANAR, TO_PLANAR):
        for after in (PLANAR, FROM_PLANAR):
            height, width = (source[axis] for axis in before[2:])
            tall, wide = (target[after.index(axis)] for axis in (2, 3))
            if tall > height and tall % height == 0 and tall // height == wide / width:
                for mode in ("CRD", "DCR"):
                    yield Movement(before, "DepthToSpace", tall // height, mode, after)
            elif height > tall and height % tall == 0 and height // tall == width / wide:
                for mode in ("CRD", "DCR"):
                    yield Movement(before, "SpaceToDepth", height // tall, mode, after)


def _put(movement: Movement, source: ir.Value, node: ir.Node) -> None:
    """Put the operators of a movement of ``source`` in the place of ``node``."""
    shape = shape_of(source)
    assert shape is not None
    value, planar = source, np.empty(shape, np.bool_).transpose(movement.before)
    if movement.before != PLANAR:
        value = inserted(node, "Transpose", [value], planar.shape, {"perm": movement.before})
    if movement.op:
        planar = movement.shuffled(planar)
        attributes = {"blocksize": movement.block, "mode": movement.mode}
        value = inserted(node, movement.op, [value], planar.shape, attributes)
    if movement.after != PLANAR:
        shape = planar.transpose(movement.after).shape
        value = inserted(node, "Transpose", [value], shape, {"perm": movement.after})
    replace(node, value)


def _depth_to_space(value: NDArray[Any], block: int, mode: str) -> NDArray[Any]:
    count, channels, height, width = value.shape
    depth = channels // block**2
    if channels % block**2:
        return value
    if mode == "CRD":
        parts = value.reshape(count, depth, block, block, height, width)
        moved = parts.transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = value.reshape(count, block, block, depth, height, width)
        moved = parts.transpose(0, 3, 4, 1, 5, 2)
    return moved.reshape(count, depth, block * height, block * width)


def _space_to_depth(value: NDArray[Any], block: int, mode: str) -> NDArray[Any]:
    count, depth, height, width = value.shape
    parts = value.reshape(count, depth, height // block, block, width // block, block)
    moved = parts.transpose((0, 1, 3, 5, 2, 4) if mode == "CRD" else (0, 3, 5, 1, 2, 4))
    return moved.reshape(count, depth * block**2, height // block, width // block)
