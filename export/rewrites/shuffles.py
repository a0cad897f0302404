"""Shuffles (DepthToSpace): their order of channels, and the convolutions around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from export.errors import CannotLower
from export.graph import Array, Graph, Node
from export.node import Attribute
from export.operators import CONVOLUTIONS, Trait, operators_with
from export.rewrites.additions import Additions

CHANNELWISE = operators_with(Trait.PER_CHANNEL)
"""Operators that commute with a permutation of channels."""


def convolve_before_shuffles(graph: Graph) -> Graph:
    """Move a convolution with few output channels, such as the last one, before its 2×2 shuffle.

    The moved convolution makes the four pixels of a block as channels; its kernel is zero wherever
    a pixel does not see a neighbour. It needs four times the MultAdds, but it uses the runtimes'
    kernels better, few channels are shuffled instead of many, and no features are stored at the
    higher resolution. Shuffles of 3×3 blocks stay, because nine times the MultAdds are slower on
    some targets.
    """
    added = Additions(graph)
    channels, moved = graph.channels(), set[str]()

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            conv = _convolution_after_shuffle(graph, node)
            if conv is not None and 4 * channels[conv.output] <= channels[node.output]:
                moved.add(conv.output)
                weight, bias = conv.inputs[1:]
                kernel, shifts = graph.constants[weight], graph.constants[bias]
                operands = (
                    node.inputs[0],
                    added.constant(f"{weight}/blocks", block_kernel(kernel, 2), weight),
                    added.constant(f"{bias}/blocks", np.repeat(shifts, 4), bias),
                )
                blocks = added.activation(f"{conv.output}/blocks", conv.output)
                yield dataclasses.replace(conv, inputs=operands, outputs=(blocks,))
                yield dataclasses.replace(node, inputs=(blocks,), outputs=conv.outputs)
            elif node.outputs[0] not in moved:
                yield node

    return added.graph(rewritten())


def block_kernel(weight: Array, block: int) -> Array:
    """Return the kernel that makes blocks of pixels from shuffled blocks of features.

    Args:
        weight: Out × in × k × k, of a convolution that reads a CRD shuffle.
        block: Upscaling factor r of the shuffle.

    Returns:
        Out·r² × in·r² × k' × k', input and output channels in CRD order, for the features before
        the shuffle.
    """
    outputs, inputs, size = weight.shape[:3]
    reach = -(-(size // 2) // block)
    shape = (outputs, block, block, inputs, block, block, 2 * reach + 1, 2 * reach + 1)
    kernel = np.zeros(shape, np.float32)
    # Pixel i of a block sees, t further, pixel (i + t) mod r of the block (i + t) div r further.
    seen = [
        (i, t, (i + t - size // 2) % block, (i + t - size // 2) // block + reach)
        for i in range(block)
        for t in range(size)
    ]
    for i, y, row, to_row in seen:
        for j, x, column, to_column in seen:
            kernel[:, i, j, :, row, column, to_row, to_column] = weight[:, :, y, x]
    return kernel.reshape(outputs * block**2, inputs * block**2, *shape[-2:])


def convolve_for_shuffles(graph: Graph) -> Graph:
    """Put a 1×1 convolution that copies before every shuffle without a convolution of its own.

    Other rewrites give channels their order, and shuffles another form, through the convolution.
    """
    added, channels = Additions(graph), graph.channels()

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op != "DepthToSpace" or _has_convolution(graph, node):
                yield node
                continue
            (value,) = node.inputs
            copies = np.eye(channels[value], dtype=np.float32)
            operands = (
                value,
                added.constant(f"{node.output}/copy.weight", copies[..., None, None]),
                added.constant(f"{node.output}/copy.bias", np.zeros(len(copies), np.float32)),
            )
            copied = added.activation(f"{node.output}/copy", value)
            yield Node("Conv", node.name, operands, (copied,), {"groups": 1})
            yield dataclasses.replace(node, inputs=(copied,))

    return added.graph(rewritten())


def _has_convolution(graph: Graph, shuffle: Node) -> bool:
    try:
        return bool(chain_from_convolution(graph, shuffle))
    except CannotLower:
        return False


def use_dcr_shuffles(graph: Graph) -> Graph:
    """Permute the convolution before every CRD shuffle so that the shuffle becomes DCR.

    For pixel (i, j) of output channel c, PyTorch's PixelShuffle reads channel c·r² + i·r + j (ONNX
    calls this order ``CRD``), TFLite and most NPUs read channel (i·r + j)·C + c (``DCR``).
    Element-wise operators between convolution and shuffle commute with the permutation, if their
    constants are permuted, too.

    Raises:
        CannotLower: If a shuffle is not fed by an ungrouped convolution of its own.
    """
    added = Additions(graph)
    replaced: dict[str, Node] = {}
    for shuffle in graph.nodes:
        if shuffle.op != "DepthToSpace" or shuffle.attributes["mode"] == "DCR":
            continue
        chain, block = chain_from_convolution(graph, shuffle), shuffle.integer("block")
        conv = chain[0]
        if conv.integer("groups") != 1:
            raise CannotLower(
                f"{conv.name}: a convolution in {conv.integer('groups')} groups feeds a shuffle; "
                "make it dense or split it first"
            )
        order = dcr_order(graph.kernel_shape(conv)[0] // block**2, block)
        for link in chain[:-1]:
            value, *constants = link.inputs
            permuted = (
                added.constant(f"{name}/dcr", graph.constants[name][order], name)
                for name in constants
            )
            replaced[link.output] = dataclasses.replace(link, inputs=(value, *permuted))
            added.replacement(link.output)
        replaced[shuffle.output] = dataclasses.replace(
            shuffle, attributes={"block": block, "mode": "DCR"}
        )
    return added.graph(replaced.get(node.outputs[0], node) for node in graph.nodes)


def dcr_order(channels: int, block: int) -> np.ndarray:
    """Return the permutation that turns CRD-ordered channels into DCR order.

    Args:
        channels: Output channels C after the shuffle.
        block: Upscaling factor r of the shuffle.

    Returns:
        Integer array of length C·r²; element k is the CRD channel at position k of DCR order.
    """
    return np.arange(channels * block * block).reshape(channels, block * block).T.ravel()


def join_rows_of_shuffles(graph: Graph) -> Graph:
    """Give every CRD shuffle DCR order and mode ROWS: rows of pixels are concatenated.

    For NPUs without a depth-to-space operator, where transposed convolutions cannot do it.

    Raises:
        CannotLower: As ``use_dcr_shuffles``.
    """
    permuted = use_dcr_shuffles(graph)
    return permuted.with_nodes(
        dataclasses.replace(node, attributes={**node.attributes, "mode": "ROWS"})
        if node.op == "DepthToSpace"
        else node
        for node in permuted.nodes
    )


def use_transposed_convolutions(graph: Graph) -> Graph:
    """Turn every CRD shuffle of 2×2 blocks into a transposed convolution of zeros and ones.

    For NPUs without a depth-to-space operator (Arm Ethos-U, whose transposed convolutions have a
    stride of at most two).

    Raises:
        CannotLower: If a shuffle is in DCR order.
    """
    added = Additions(graph)

    def rewritten() -> Iterator[Node]:
        channels = graph.channels()
        for node in graph.nodes:
            if node.op != "DepthToSpace" or node.integer("block") != 2:
                yield node
                continue
            if node.attributes["mode"] != "CRD":
                raise CannotLower(f"{node.name}: only CRD shuffles become transposed convolutions")
            block, outputs = node.integer("block"), channels[node.output]
            # Input channel c·r² + i·r + j writes output channel c at (i, j) of its r × r block.
            kernel = np.einsum(
                "cd,ij->cidj", np.eye(outputs, dtype=np.float32), np.eye(block**2, dtype=np.float32)
            ).reshape(outputs * block**2, outputs, block, block)
            operands = (
                node.inputs[0],
                added.constant(f"{node.output}/shuffle.weight", kernel),
                added.constant(f"{node.output}/shuffle.bias", np.zeros(outputs, np.float32)),
            )
            attributes: dict[str, Attribute] = {
                "stride": block,
                "groups": 1,
                "crops": (0, 0, 0, 0),
            }
            yield Node("ConvTranspose", node.name, operands, node.outputs, attributes)

    return added.graph(rewritten())


def chain_from_convolution(graph: Graph, shuffle: Node) -> list[Node]:
    """Return the nodes from the convolution that feeds ``shuffle`` up to the shuffle itself.

    Raises:
        CannotLower: If a node between them is not element-wise, or has other consumers.
    """
    chain = [shuffle]
    while chain[0].op in CHANNELWISE or chain[0] is shuffle:
        producer = graph.producer(chain[0].inputs[0])
        if producer is None or graph.sole_consumer(producer.outputs[0]) is not chain[0]:
            break
        chain.insert(0, producer)
    if chain[0].op not in CONVOLUTIONS:
        stopped = chain[0] is shuffle or chain[0].op in CHANNELWISE
        found = "an activation that other nodes read too" if stopped else chain[0].op
        raise CannotLower(
            f"{shuffle.name}: a shuffle must be fed by a convolution of its own; found {found}"
        )
    return chain


def _convolution_after_shuffle(graph: Graph, shuffle: Node) -> Node | None:
    """Return the ungrouped convolution that alone reads a CRD shuffle of 2×2 blocks, or None."""
    if shuffle.op != "DepthToSpace" or shuffle.attributes != {"block": 2, "mode": "CRD"}:
        return None
    conv = graph.sole_consumer(shuffle.output)
    if conv is None or conv.op != "Conv" or conv.integer("groups") != 1:
        return None
    # Moved, the shuffle would stand between the convolution and its Relu and prevent their fusion.
    return conv if graph.fused_relu(conv) is None else None
