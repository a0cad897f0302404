"""Enlargements by linear and cubic interpolation: a convolution for every pixel of a block.

An enlarged picture has r × r pixels where the small one has one, and pixel (i, j) of every such
block is the same weighted sum of the pixels around: a convolution. So the enlargement needs no
operator of its own, takes any size, and computes the same in every format.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from export.graph import Array, Graph, Node
from export.misfits import INTERPOLATIONS
from export.node import Attribute
from export.rewrites.additions import Additions
from export.rewrites.windows import convolution

_A = -0.75
"""The constant of the cubic that torch, OpenCV and ONNX interpolate with by default."""


def interpolate_by_convolutions(graph: Graph) -> Graph:
    """Interpolate by a convolution and a shuffle of a picture whose edges are repeated."""
    added, channels = Additions(graph), graph.channels()

    def rewritten() -> Iterator[Node]:
        for node in graph.nodes:
            if node.op != "Interpolate":
                yield node
                continue
            factor, mode = node.integer("factor"), node.text("mode")
            (value,), count, reach = node.inputs, channels[node.output], INTERPOLATIONS[mode]
            wider = added.activation(f"{node.output}/edges", value)
            sides: dict[str, Attribute] = {"pads": (reach,) * 4, "mode": "edge"}
            yield Node("Pad", node.name, (value,), (wider,), sides)
            kernel = interpolation_kernel(factor, mode, count)
            operands = (
                wider,
                added.constant(f"{node.output}/interpolation.weight", kernel),
                added.constant(
                    f"{node.output}/interpolation.bias", np.zeros(len(kernel), np.float32)
                ),
            )
            blocks = added.activation(f"{node.output}/blocks", f"{node.output}/blocks")
            made = convolution(node, operands, kernel.shape[2:], 1, (0,) * 4)
            yield Node(made.op, node.name, made.inputs, (blocks,), made.attributes)
            order: dict[str, Attribute] = {"block": factor, "mode": "CRD"}
            yield Node("DepthToSpace", node.name, (blocks,), node.outputs, order)

    return added.graph(rewritten())


def interpolation_multadds(graph: Graph, width: int, height: int) -> int:
    """Return what the convolutions cost that interpolate, at an output of width × height.

    Args:
        graph: As captured, which counts interpolation as nothing, as papers do.
        width: See ``Graph.multadds``.
        height: See there.
    """
    convolved = interpolate_by_convolutions(graph)
    return convolved.multadds(width, height) - graph.multadds(width, height)


def interpolation_kernel(factor: int, mode: str, channels: int) -> Array:
    """Return the kernel that makes blocks of interpolated pixels, in CRD order.

    Each channel is made of one, but the kernel is dense: runtimes have fast code for it, and
    pictures have three channels.

    Args:
        factor: Height and width of a block, r.
        mode: ``linear`` or ``cubic``.
        channels: Channels of the picture, C.

    Returns:
        C·r² × C × k × k.
    """
    reach = INTERPOLATIONS[mode]
    pixels = (np.arange(factor) + 0.5) / factor - 0.5  # relative to the centre of the small one
    distances = np.abs(np.arange(-reach, reach + 1) - pixels[:, None])
    weights = np.maximum(1 - distances, 0) if mode == "linear" else _cubic(distances)
    block = np.einsum("iy,jx->ijyx", weights, weights).reshape(factor**2, *[2 * reach + 1] * 2)
    kernel: Array = np.einsum("cd,pyx->cpdyx", np.eye(channels), block)
    return kernel.reshape(channels * factor**2, channels, *block.shape[1:]).astype(np.float32)


def _cubic(distances: Array) -> Array:
    """Return Keys' weights of pixels at these distances (IEEE ASSP 29, 1981), with his a."""
    near = ((_A + 2) * distances - (_A + 3)) * distances**2 + 1
    far = ((distances - 5) * distances + 8) * distances * _A - 4 * _A
    weights: Array = np.where(distances <= 1, near, np.where(distances < 2, far, 0))
    return weights
