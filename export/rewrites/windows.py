"""Operators that read windows of pixels in ways that some formats lack, as operators all have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from export.errors import CannotLower
from export.graph import Array, Graph, Node
from export.node import Attribute, convolution_attributes
from export.operators import CONVOLUTIONS
from export.rewrites.additions import Additions
from export.sampling import pads_as_usual


def convolve_blocks(graph: Graph) -> Graph:
    """Read blocks of pixels by strided convolutions instead of laying them out as channels.

    An ungrouped convolution that reads them has its kernel spread over the pixels of the blocks.
    For all other readers, a convolution with a kernel of zeros and ones makes the channels. Formats
    have different orders of these channels, but one order of pixels.
    """
    added, channels = Additions(graph), graph.channels()
    blocks = {node.output: node for node in graph.nodes if node.op == "SpaceToDepth"}
    spread = {
        node.output: blocks[node.inputs[0]]
        for node in graph.nodes
        if node.inputs[0] in blocks and _is_plain(node)
    }
    needed = {
        value
        for value in blocks
        if value in graph.outputs
        or any(reader.outputs[0] not in spread for reader in graph.consumers(value))
    }

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op == "SpaceToDepth":
                if node.output in needed:
                    block, count = node.integer("block"), channels[node.inputs[0]]
                    identity = np.eye(count * block**2, dtype=np.float32)
                    kernel = spread_kernel(identity[..., None, None], block, node.text("mode"))
                    operands = (
                        node.inputs[0],
                        added.constant(
                            f"{node.output}/blocks.weight",
                            kernel,
                        ),
                        added.constant(f"{node.output}/blocks.bias", np.zeros_like(identity[0])),
                    )
                    yield convolution(node, operands, (block, block), block, (0,) * 4)
                continue
            shuffle = spread.get(node.outputs[0])
            if shuffle is None:
                yield node
                continue
            _, weight, bias = node.inputs
            block, stride = shuffle.integer("block"), 1
            kernel = spread_kernel(graph.constants[weight], block, shuffle.text("mode"))
            pads = (graph.kernel_shape(node)[-1] // 2,) * 4
            if node.op == "GeneralConv":
                stride, pads = node.integer("stride"), node.sides("pads")
            operands = (shuffle.inputs[0], added.constant(f"{weight}/spread", kernel, weight), bias)
            spread_pads = tuple(side * block for side in pads)
            yield convolution(node, operands, kernel.shape[2:], stride * block, spread_pads)

    return added.graph(rewritten())


def spread_kernel(weight: Array, block: int, mode: str) -> Array:
    """Return the kernel that reads from pixels what ``weight`` reads from their blocks.

    Args:
        weight: Out × in·block² × height × width.
        block: Height and width of a block in pixels.
        mode: Order of the input channels, as in SpaceToDepth.

    Returns:
        Out × in × height·block × width·block.
    """
    outputs, inputs, height, width = weight.shape
    if mode == "CRD":
        apart = weight.reshape(outputs, inputs // block**2, block, block, height, width)
    else:
        apart = weight.reshape(outputs, block, block, inputs // block**2, height, width)
        apart = apart.transpose(0, 3, 1, 2, 4, 5)
    together = apart.transpose(0, 1, 4, 2, 5, 3)
    return together.reshape(outputs, -1, height * block, width * block)


def transposed_by_shuffles(graph: Graph) -> Graph:
    """Turn every transposed convolution into a convolution and a shuffle.

    The convolution makes the r × r pixels of a block as channels, each from the pixels that a
    transposed convolution of stride r spreads over it. What lies outside is cut off afterwards,
    unless the blocks can start where the result does. TFLite's own operator needs sizes that are
    known when the file is written, and has no groups.

    Raises:
        CannotLower: If a transposed convolution cuts off more than its whole kernel.
    """
    added = Additions(graph)

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op != "ConvTranspose":
                yield node
                continue
            value, weight, bias = node.inputs
            stride, groups = node.integer("stride"), node.integer("groups")
            crops = node.sides("crops")
            height, width = graph.kernel_shape(node)[2:]
            rows = _Phases.of(height, stride, *crops[:2])
            columns = _Phases.of(width, stride, *crops[2:])
            pads, cut = (*rows.pads, *columns.pads), (*rows.cut, *columns.cut)
            if min(pads) < 0:
                raise CannotLower(
                    f"{node.name}: a transposed convolution cuts off {crops} pixels, more than its "
                    f"kernel of {height} × {width} adds"
                )
            kernel = phase_kernel(graph.constants[weight], stride, groups, rows, columns)
            shifts = graph.constants[bias].repeat(stride**2)
            operands = (
                value,
                added.constant(f"{weight}/phases", kernel, weight),
                added.constant(f"{bias}/phases", shifts, bias),
            )
            blocks = added.activation(f"{node.output}/blocks", f"{node.output}/blocks")
            made = dataclasses.replace(node, outputs=(blocks,))
            yield convolution(made, operands, kernel.shape[2:], 1, pads, groups)
            shuffled = node.output
            if any(cut):
                shuffled = added.activation(f"{node.output}/uncut", f"{node.output}/uncut")
            order: dict[str, Attribute] = {"block": stride, "mode": "CRD"}
            yield Node("DepthToSpace", node.name, (blocks,), (shuffled,), order)
            if any(cut):
                sides: dict[str, Attribute] = {
                    "pads": tuple(-side for side in cut),
                    "mode": "zeros",
                }
                yield Node("Pad", node.name, (shuffled,), node.outputs, sides)

    return added.graph(rewritten())


@dataclass(frozen=True)
class _Phases:
    """How blocks of a transposed convolution are made along one axis.

    Attributes:
        taps: Pixels that a block is made of.
        start: The result's pixel where the first block starts, in front of any cutting.
        first: The first of the pixels that a block is made of, from the block's own place.
        pads: Zeros needed before and behind.
        cut: Pixels that are too many before and behind.
    """

    taps: int
    start: int
    first: int
    pads: tuple[int, int]
    cut: tuple[int, int]

    @classmethod
    def of(cls, size: int, stride: int, before: int, after: int) -> _Phases:
        """Choose where blocks start: with the fewest taps, and then with the least to cut off."""
        return min(
            (cls._from(size, stride, before, after, cut) for cut in range(min(stride, before + 1))),
            key=lambda one: (one.taps, sum(one.cut)),
        )

    @classmethod
    def _from(cls, size: int, stride: int, before: int, after: int, cut: int) -> _Phases:
        start = before - cut
        first, last = -((size - 1 - start) // stride), (stride - 1 + start) // stride
        taps = last - first + 1
        surplus = size - stride - before - after  # pixels beside stride · n
        more = -(-(cut + surplus) // stride)  # blocks beside n
        pads = (-first, more + first + taps - 1)
        return cls(taps, start, first, pads, (cut, stride * more - cut - surplus))


def phase_kernel(weight: Array, stride: int, groups: int, rows: _Phases, columns: _Phases) -> Array:
    """Return the kernel that makes blocks of pixels, from that of a transposed convolution.

    Args:
        weight: In × out/groups × height × width.
        stride: Height and width of a block.
        groups: Number of groups.
        rows: How blocks are made along the height.
        columns: How they are made along the width.

    Returns:
        Out·stride² × in/groups × taps × taps, output channels in PyTorch's order.
    """
    inputs, outputs, height, width = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, height, width)
    shape = (groups, outputs, stride, stride, inputs // groups, rows.taps, columns.taps)
    kernel = np.zeros(shape, np.float32)

    def met(phases: _Phases, size: int) -> list[tuple[int, int, int]]:
        """Return which pixel of the kernel each pixel of a block takes from each tap."""
        found = (
            (pixel, tap, pixel + phases.start - stride * (phases.first + tap))
            for pixel in range(stride)
            for tap in range(phases.taps)
        )
        return [one for one in found if 0 <= one[2] < size]

    for i, to_row, row in met(rows, height):
        for j, to_column, column in met(columns, width):
            taken = grouped[:, :, :, row, column].transpose(0, 2, 1)
            kernel[:, :, i, j, :, to_row, to_column] = taken
    return kernel.reshape(-1, inputs // groups, rows.taps, columns.taps)


def pad_before_convolutions(graph: Graph) -> Graph:
    """Add zeros by an operator of their own where TFLite cannot add them in the convolution."""
    added, sizes = Additions(graph), graph.sizes()

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op != "GeneralConv" or pads_as_usual(
                sizes[node.inputs[0]],
                graph.multiple,
                graph.kernel_shape(node)[2:],
                node.integer("stride"),
                node.integer("dilation"),
                node.sides("pads"),
            ):
                yield node
                continue
            value, *constants = node.inputs
            padded = added.activation(f"{value}/padded.{node.output}", value)
            sides: dict[str, Attribute] = {"pads": node.sides("pads"), "mode": "zeros"}
            yield Node("Pad", node.name, (value,), (padded,), sides)
            yield dataclasses.replace(
                node,
                inputs=(padded, *constants),
                attributes={**node.attributes, "pads": (0, 0, 0, 0)},
            )

    return added.graph(rewritten())


def convolution(
    node: Node,
    operands: tuple[str, str, str],
    kernel: tuple[int, ...],
    stride: int,
    pads: tuple[int, ...],
    groups: int = 1,
    dilation: int = 1,
) -> Node:
    """Return the convolution that makes what ``node`` makes: Conv if that can express it.

    Args:
        node: Gives name and outputs.
        operands: Value, weight and bias.
        kernel: Height and width of the kernel.
        stride: See ``GeneralConv``, as the other arguments.
        pads: See there.
        groups: See there.
        dilation: See there.
    """
    op, attributes = convolution_attributes(kernel, stride, pads, groups, dilation)
    return Node(op, node.name, operands, node.outputs, attributes)


def _is_plain(node: Node) -> bool:
    """Tell whether a node is an ungrouped convolution of neighbouring pixels."""
    if node.op not in CONVOLUTIONS or node.integer("groups") != 1:
        return False
    return node.op == "Conv" or node.integer("dilation") == 1
