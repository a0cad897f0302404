"""Exact rewrites: each a pure function from graph to graph that changes no output.

``REWRITES`` names them; a target profile (``export/profiles.py``) says which ones a file gets, and
the manifest lists them. Every rewrite is proven by a test that runs the graph before and after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from export.errors import CannotLower
from export.graph import Array, Graph, Node

# Element-wise operators that commute with a permutation of channels.
_CHANNELWISE = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "Requantize"})


def fold_template_bank(graph: Graph) -> Graph:
    """Compute every kernel that is mixed from templates, so that convolutions own theirs."""
    mixed = {node.output: node for node in graph.nodes if node.op == "MixTemplates"}
    folded: dict[str, Array] = {}
    for output, node in mixed.items():
        coefficients, templates = (graph.constants[name].astype(np.float64) for name in node.inputs)
        kernel = (coefficients @ templates).reshape(node.shape())
        folded[output] = kernel.astype(np.float32)
    return graph.with_nodes([n for n in graph.nodes if n.op != "MixTemplates"], **folded)


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
        and producer.op == "Conv"
        and graph.sole_consumer(node.inputs[0]) is node
    }
    added: dict[str, Array] = {}

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node in shifts.values():
                continue
            shift = shifts.get(node.outputs[0])
            if shift is None:
                yield node
                continue
            value, weight, bias = node.inputs
            name = f"{bias}+{shift.inputs[1]}"
            added[name] = graph.constants[bias] + graph.constants[shift.inputs[1]].reshape(-1)
            yield dataclasses.replace(node, inputs=(value, weight, name), outputs=shift.outputs)

    return graph.with_nodes(list(rewritten()), **added)


def carry_mean_as_channel(graph: Graph) -> Graph:
    """Replace the subtraction of the mean colour by a fourth input channel of ones.

    An 8-bit picture minus a mean does not fit 8 bits at the picture's own scale, so quantizing the
    difference loses accuracy before the first layer. A 1×1 convolution that copies the picture and
    appends ones keeps every pixel exact; the next convolution applies the means through its
    kernel for that channel. Zero padding pads the ones too, so borders stay exact as well.
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
        node.op != "Conv" or node.integer("groups") != 1 for node in entries
    ):
        raise CannotLower(
            f"{subtraction.name}: something else than convolutions in one group reads the picture "
            "minus its mean; choose a profile without carry_mean_as_channel"
        )
    means = graph.constants[subtraction.inputs[1]].reshape(1, -1, 1, 1)
    copied = f"{graph.input}/ones"
    copy = Node(
        "Conv",
        subtraction.name,
        (graph.input, "append_ones.weight", "append_ones.bias"),
        (copied,),
        {"groups": 1},
    )
    added = {
        "append_ones.weight": np.eye(4, 3, dtype=np.float32).reshape(4, 3, 1, 1),
        "append_ones.bias": np.array([0, 0, 0, 1], np.float32),
    }

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node is subtraction:
                yield copy
            elif node in entries:
                weight = graph.constants[node.inputs[1]]
                name = f"{node.inputs[1]}/ones"
                ones = -(weight * means).sum(axis=1, keepdims=True)
                added[name] = np.concatenate([weight, ones], axis=1)
                yield dataclasses.replace(node, inputs=(copied, name, node.inputs[2]))
            else:
                yield node

    return graph.with_nodes(list(rewritten()), **added)


def convolve_before_pooling(graph: Graph) -> Graph:
    """Move a 1×1 convolution that alone reads a global average before the pooling.

    An average that is rounded to 8 bits, and then weighed with all others of a picture, is wrong
    by as much everywhere. What is rounded for every pixel and then averaged is not: the errors of
    thousands of pixels cancel. The two operators swap the names of their results, too, so that
    the table of scales covers both.
    """
    moved: dict[str, Node] = {}
    for pool in graph.nodes:
        conv = graph.sole_consumer(pool.output) if pool.op == "GlobalAveragePool" else None
        if conv is not None and conv.op == "Conv" and graph.kernel_shape(conv)[-1] == 1:
            operands = (pool.inputs[0], *conv.inputs[1:])
            moved[pool.output] = dataclasses.replace(conv, inputs=operands, outputs=pool.outputs)
            moved[conv.output] = dataclasses.replace(
                pool, inputs=pool.outputs, outputs=conv.outputs
            )
    return graph.with_nodes([moved.get(node.outputs[0], node) for node in graph.nodes])


def make_convolutions_dense(graph: Graph) -> Graph:
    """Turn grouped convolutions into plain ones with block-diagonal kernels.

    More MultAdds, all of them by zero, but many kernels for grouped convolutions are slower still.
    """
    added: dict[str, Array] = {}

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op != "Conv" or node.integer("groups") == 1:
                yield node
                continue
            value, weight, bias = node.inputs
            name = f"{weight}/dense"
            added[name] = block_diagonal(graph.constants[weight], node.integer("groups"))
            yield dataclasses.replace(node, inputs=(value, name, bias), attributes={"groups": 1})

    return graph.with_nodes(list(rewritten()), **added)


def block_diagonal(weight: Array, groups: int) -> Array:
    """Return the dense kernel (out × in × k × k) of a grouped one (out × in/groups × k × k)."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    dense = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), np.float32)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return dense


def convolve_before_shuffles(graph: Graph) -> Graph:
    """Move a convolution to few channels, such as the last one to colours, before its shuffle.

    There it makes the four pixels of a block as channels, with a kernel of zeros wherever a pixel
    does not see a neighbour. That is four times the MultAdds, but kernels that make twelve channels
    at a time waste less than those for three, few channels are shuffled instead of many, and the
    features are never held at the higher resolution. Blocks of 3×3, with nine times the MultAdds
    and a kernel nearly half as large as the rest of CARN-M, lose on some targets and stay.
    """
    added: dict[str, Array] = {}
    channels, moved = graph.channels(), set[str]()

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            conv = _convolution_after_shuffle(graph, node)
            if conv is not None and 4 * channels[conv.output] <= channels[node.output]:
                moved.add(conv.output)
                weight, bias = conv.inputs[1:]
                operands = (node.inputs[0], f"{weight}/blocks", f"{bias}/blocks")
                added[operands[1]] = block_kernel(graph.constants[weight], 2)
                added[operands[2]] = np.repeat(graph.constants[bias], 4)
                blocks = f"{conv.output}/blocks"
                yield dataclasses.replace(conv, inputs=operands, outputs=(blocks,))
                yield dataclasses.replace(node, inputs=(blocks,), outputs=conv.outputs)
            elif node.outputs[0] not in moved:
                yield node

    return graph.with_nodes(list(rewritten()), **added)


def block_kernel(weight: Array, block: int) -> Array:
    """Return the kernel that makes blocks of pixels from shuffled blocks of features.

    Args:
        weight: Out × in × k × k, of a convolution that reads a CRD shuffle.
        block: Upscaling factor r of the shuffle.

    Returns:
        Out·r² × in·r² × k' × k', both sides in CRD order, for the features before the shuffle.
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


def split_shuffled_convolutions(graph: Graph) -> Graph:
    """Split each grouped convolution that feeds a shuffle into one branch per group.

    Channels of such a convolution may not cross its groups, so that its shuffle cannot be put in
    DCR order; each branch, an ungrouped convolution with a shuffle of its own, can.
    """
    added: dict[str, Array] = {}
    nodes = list(graph.nodes)
    for shuffle in [node for node in graph.nodes if node.op == "DepthToSpace"]:
        chain = _chain_from_convolution(graph, shuffle)
        conv, groups = chain[0], chain[0].integer("groups")
        if groups == 1:
            continue
        outputs = graph.constants[conv.inputs[1]].shape[0] // groups
        if shuffle.attributes["mode"] != "CRD" or outputs % shuffle.integer("block") ** 2:
            raise CannotLower(
                f"{conv.name}: the {groups} groups of this convolution do not hold whole channels "
                "of the shuffle after it; make it dense"
            )
        branches, constants = _branches(graph, chain, groups)
        added.update(constants)
        start = nodes.index(conv)
        nodes = [node for node in nodes if node not in chain]
        nodes[start:start] = branches
    return graph.with_nodes(nodes, **added)


def use_dcr_shuffles(graph: Graph) -> Graph:
    """Permute the convolution before every CRD shuffle so that the shuffle becomes DCR.

    PyTorch's PixelShuffle reads channel c·r² + i·r + j for output pixel (i, j), ONNX's ``CRD``;
    TFLite and most NPUs read (i·r + j)·C + c, ``DCR``. Element-wise operators commute with it.

    Raises:
        CannotLower: If a shuffle is fed by anything else, or by a grouped convolution.
    """
    added: dict[str, Array] = {}
    replaced: dict[str, Node] = {}
    for shuffle in graph.nodes:
        if shuffle.op != "DepthToSpace" or shuffle.attributes["mode"] == "DCR":
            continue
        conv, block = _chain_from_convolution(graph, shuffle)[0], shuffle.integer("block")
        if conv.integer("groups") != 1:
            raise CannotLower(
                f"{conv.name}: a convolution in {conv.integer('groups')} groups feeds a shuffle; "
                "make it dense or split it first"
            )
        names = [f"{name}/dcr" for name in conv.inputs[1:]]
        for old, new in zip(conv.inputs[1:], names, strict=True):
            array = graph.constants[old]
            added[new] = array[dcr_order(array.shape[0] // block**2, block)]
        replaced[conv.output] = dataclasses.replace(conv, inputs=(conv.inputs[0], *names))
        replaced[shuffle.output] = dataclasses.replace(
            shuffle, attributes={"block": block, "mode": "DCR"}
        )
    return graph.with_nodes([replaced.get(n.outputs[0], n) for n in graph.nodes], **added)


def dcr_order(channels: int, block: int) -> np.ndarray:
    """Return the permutation that turns CRD-ordered channels into DCR order.

    Args:
        channels: Output channels C after the shuffle.
        block: Upscaling factor r of the shuffle.

    Returns:
        Integer array of length C·r²; element k is the CRD channel that belongs at k.
    """
    return np.arange(channels * block * block).reshape(channels, block * block).T.ravel()


def use_transposed_convolutions(graph: Graph) -> Graph:
    """Turn every CRD shuffle into a transposed convolution with a kernel of zeros and ones.

    For NPUs without a depth-to-space operator (Arm Ethos-U).
    """
    added: dict[str, Array] = {}

    def rewritten() -> Iterator[Node]:
        channels = graph.channels()
        for node in graph.nodes:
            if node.op != "DepthToSpace":
                yield node
                continue
            if node.attributes["mode"] != "CRD":
                raise CannotLower(f"{node.name}: only CRD shuffles become transposed convolutions")
            block, outputs = node.integer("block"), channels[node.output]
            names = (f"{node.output}/shuffle.weight", f"{node.output}/shuffle.bias")
            # Input channel c·r² + i·r + j writes output channel c at (i, j) of its r × r block.
            added[names[0]] = np.einsum(
                "cd,ij->cidj", np.eye(outputs, dtype=np.float32), np.eye(block**2, dtype=np.float32)
            ).reshape(outputs * block**2, outputs, block, block)
            added[names[1]] = np.zeros(outputs, np.float32)
            yield Node(
                "ConvTranspose",
                node.name,
                (node.inputs[0], *names),
                node.outputs,
                {"stride": block, "groups": 1},
            )

    return graph.with_nodes(list(rewritten()), **added)


REWRITES: Mapping[str, Callable[[Graph], Graph]] = {
    function.__name__: function
    for function in (
        fold_template_bank,
        fold_output_shift,
        carry_mean_as_channel,
        convolve_before_pooling,
        make_convolutions_dense,
        convolve_before_shuffles,
        split_shuffled_convolutions,
        use_dcr_shuffles,
        use_transposed_convolutions,
    )
}


def lower(graph: Graph, rewrites: Sequence[str]) -> Graph:
    """Apply the named rewrites in order."""
    for name in rewrites:
        graph = REWRITES[name](graph)
    return graph


def _chain_from_convolution(graph: Graph, shuffle: Node) -> list[Node]:
    """Return the nodes from the convolution that feeds ``shuffle`` up to the shuffle itself."""
    chain = [shuffle]
    while chain[0].op in _CHANNELWISE or chain[0] is shuffle:
        producer = graph.producer(chain[0].inputs[0])
        if producer is None or graph.sole_consumer(producer.outputs[0]) is not chain[0]:
            break
        chain.insert(0, producer)
    if chain[0].op != "Conv":
        stopped = chain[0] is shuffle or chain[0].op in _CHANNELWISE
        found = "a value that others read too" if stopped else chain[0].op
        raise CannotLower(
            f"{shuffle.name}: a shuffle must be fed by a convolution of its own; found {found}"
        )
    return chain


def _convolution_after_shuffle(graph: Graph, shuffle: Node) -> Node | None:
    """Return the plain convolution that alone reads a CRD shuffle of blocks of 2×2, if one does."""
    if shuffle.op != "DepthToSpace" or shuffle.attributes != {"block": 2, "mode": "CRD"}:
        return None
    conv = graph.sole_consumer(shuffle.output)
    if conv is None or conv.op != "Conv" or conv.integer("groups") != 1:
        return None
    # A Relu would lose its convolution: the int8 form rounds between the two only after both.
    return conv if graph.fused_relu(conv) is None else None


def _branches(
    graph: Graph, chain: Sequence[Node], groups: int
) -> tuple[list[Node], dict[str, Array]]:
    """Return Split, one copy of ``chain`` per group, and Concat, with their constants."""
    conv, shuffle = chain[0], chain[-1]
    source, weight, bias = conv.inputs
    kernels, biases = graph.constants[weight], graph.constants[bias]
    pieces = tuple(f"{source}/{conv.output}.{group}" for group in range(groups))
    nodes = [Node("Split", conv.name, (source,), pieces, {"sizes": (kernels.shape[1],) * groups})]
    constants: dict[str, Array] = {}
    for group, piece in enumerate(pieces):
        names = (f"{weight}/{group}", f"{bias}/{group}")
        rows = slice(group * kernels.shape[0] // groups, (group + 1) * kernels.shape[0] // groups)
        constants[names[0]], constants[names[1]] = kernels[rows], biases[rows]
        current = piece
        for link in chain:
            inputs = (current, *names) if link is conv else (current,)
            current = f"{link.output}/{group}"
            attributes = {"groups": 1} if link is conv else link.attributes
            nodes.append(Node(link.op, link.name, inputs, (current,), attributes))
    shuffled = tuple(f"{shuffle.output}/{group}" for group in range(groups))
    nodes.append(Node("Concat", shuffle.name, shuffled, shuffle.outputs))
    return nodes, constants
