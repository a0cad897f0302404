"""Reshapes and transposes of an ONNX model, recognized by where they move each value.

Exporters write a shuffle of pixels as Reshape, Transpose, Reshape in many spellings: PyTorch's
order of channels or TensorFlow's, N × C × H × W or N × H × W × C, in one step or in several. All of
them only move values, so where a chain takes each value from is compared with where the operators
that networks mean take it from. That depends on no spelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


Step = tuple[str, Extents]
"""``("Reshape", shape)`` or ``("Transpose", axes)``."""

_MOST = 2**20
"""Values that are followed through a chain; of larger arrays so many, chosen at random."""


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

    def shuffle(self, planar: Extents) -> list[Step]:
        """Return the steps of the operator, on N × C × H × W, between the two transposes."""
        count, channels, height, width = planar
        block = self.block
        if self.op == "DepthToSpace":
            depth, made = channels // block**2, (block * height, block * width)
            parts = (depth, block, block) if self.mode == "CRD" else (block, block, depth)
            order = (0, 1, 4, 2, 5, 3) if self.mode == "CRD" else (0, 3, 4, 1, 5, 2)
            whole = (count, *parts, height, width)
            return [("Reshape", whole), ("Transpose", order), ("Reshape", (count, depth, *made))]
        if self.op == "SpaceToDepth":
            tall, wide, depth = height // block, width // block, channels * block**2
            order = (0, 1, 3, 5, 2, 4) if self.mode == "CRD" else (0, 3, 5, 1, 2, 4)
            whole = (count, channels, tall, block, wide, block)
            return [
                ("Reshape", whole),
                ("Transpose", order),
                ("Reshape", (count, depth, tall, wide)),
            ]
        return []

    def steps(self, shape: Extents) -> list[Step]:
        """Return all steps, from an operand of four axes."""
        planar = tuple(shape[axis] for axis in self.before)
        ends: list[Step] = [("Transpose", self.before), ("Transpose", self.after)]
        return [ends[0], *self.shuffle(planar), ends[1]]


def result_shape(shape: Extents, steps: Sequence[Step]) -> Extents:
    """Return the shape after some steps."""
    for kind, numbers in steps:
        shape = numbers if kind == "Reshape" else tuple(shape[axis] for axis in numbers)
    return shape


def origins(shape: Extents, steps: Sequence[Step], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the values at some places of the result come from.

    Args:
        shape: The operand's shape.
        steps: What is done to it.
        places: Places in the flat result.

    Returns:
        As many places in the flat operand.
    """
    shapes = [result_shape(shape, steps[:count]) for count in range(len(steps))]
    for before, (kind, numbers) in reversed([*zip(shapes, steps, strict=True)]):
        if kind == "Transpose":
            found = np.unravel_index(places, [before[axis] for axis in numbers])
            places = np.ravel_multi_index(
                [found[numbers.index(a)] for a in range(len(before))], before
            )
    return places


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
    start, *shapes = (shape_of(value) for value in (source, *(one.outputs[0] for one in chain)))
    if start is None:
        return None
    steps: list[Step] = []
    for node, shape in zip(chain, shapes, strict=True):
        if shape is None:
            return None
        reverse = tuple(reversed(range(len(shape))))
        turned = node.op_type == "Transpose"
        axes = tuple(node.attributes.get_ints("perm", reverse)) if turned else ()
        steps.append(("Transpose", axes) if turned else ("Reshape", shape))
    target = result_shape(start, steps)
    if len(target) != 4:
        return None
    size = math.prod(start)
    places = (
        np.arange(size) if size <= _MOST else np.random.default_rng(0).integers(size, size=_MOST)
    )
    wanted = origins(start, steps, places)
    for movement in _candidates(start, target):
        known = movement.steps(start)
        fits = result_shape(start, known) == target
        if fits and np.array_equal(origins(start, known, places), wanted):
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
                if source[before[1]] % (tall // height) ** 2 == 0:
                    for mode in ("CRD", "DCR"):
                        yield Movement(before, "DepthToSpace", tall // height, mode, after)
            elif height > tall and height % tall == 0 and height // tall == width / wide:
                for mode in ("CRD", "DCR"):
                    yield Movement(before, "SpaceToDepth", height // tall, mode, after)


def _put(movement: Movement, source: ir.Value, node: ir.Node) -> None:
    """Put the operators of a movement of ``source`` in the place of ``node``."""
    shape = shape_of(source)
    assert shape is not None
    value = source
    if movement.before != PLANAR:
        shape = tuple(shape[axis] for axis in movement.before)
        value = inserted(node, "Transpose", [value], shape, {"perm": movement.before})
    if movement.op:
        shape = result_shape(shape, movement.shuffle(shape))
        attributes = {"blocksize": movement.block, "mode": movement.mode}
        value = inserted(node, movement.op, [value], shape, attributes)
    if movement.after != PLANAR:
        shape = tuple(shape[axis] for axis in movement.after)
        value = inserted(node, "Transpose", [value], shape, {"perm": movement.after})
    replace(node, value)
