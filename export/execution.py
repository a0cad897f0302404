"""Running a graph in torch, the reference for every rewrite, writer and quantized file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from export.graph import Graph, Node
from export.node import Attribute

Hook = Callable[[str, Tensor], Tensor]
Sum = Callable[[Node, Tensor, Tensor], Tensor]


def tensors_of(graph: Graph, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the graph's constants as torch tensors."""
    return {name: torch.from_numpy(array).to(dtype) for name, array in graph.constants.items()}


def execute(
    graph: Graph,
    image: Tensor,
    constants: Mapping[str, Tensor] | None = None,
    hook: Hook = lambda name, value: value,
    before_relu: Hook = lambda name, value: value,
    add: Sum = lambda node, first, second: first + second,
) -> Tensor:
    """Run ``graph`` on pictures.

    Args:
        graph: Any graph, captured or lowered.
        image: N × 3 × H × W.
        constants: Weights to use for the graph's own (to train or quantize them).
        hook: Sees every activation by name as soon as it exists, the image included, and returns
            what the following nodes read. An activation that a Relu follows at once (see
            ``Graph.fused_relu``) is not shown: files do not hold it.
        before_relu: Sees those instead.
        add: Computes every Add.

    Returns:
        The restored pictures.
    """
    weights = tensors_of(graph, image.dtype) if constants is None else constants
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    values: dict[str, Tensor] = {graph.input: hook(graph.input, image)}
    for index, node in enumerate(graph.nodes):
        operands = [weights[n] if graph.is_constant(n) else values[n] for n in node.inputs]
        see = hook if graph.fused_relu(node) is None else before_relu
        results = (add(node, *operands),) if node.op == "Add" else _apply(node, operands)
        for name, value in zip(node.outputs, results, strict=True):
            values[name] = see(name, value)
        for name in node.inputs:
            if last_use[name] == index and name not in graph.outputs:
                values.pop(name, None)
    return values[graph.output]


def _apply(node: Node, x: list[Tensor]) -> tuple[Tensor, ...]:
    match node.op:
        case "Conv":
            padding, groups = x[1].shape[-1] // 2, node.integer("groups")
            return (F.conv2d(x[0], x[1], x[2], padding=padding, groups=groups),)
        case "ConvTranspose":
            stride, groups = node.integer("stride"), node.integer("groups")
            return (F.conv_transpose2d(x[0], x[1], x[2], stride=stride, groups=groups),)
        case "Relu":
            return (torch.relu(x[0]),)
        case "LeakyRelu":
            return (F.leaky_relu(x[0], node.number("slope")),)
        case "Clip":
            return (x[0].clamp(node.number("minimum"), node.number("maximum")),)
        case "Sigmoid":
            return (torch.sigmoid(x[0]),)
        case "Sub":
            return (x[0] - x[1],)
        case "Mul":
            return (x[0] * x[1],)
        case "Concat":
            return (torch.cat(x, dim=1),)
        case "Split":
            return torch.split(x[0], list(node.sizes()), dim=1)
        case "DepthToSpace":
            return (_depth_to_space(x[0], node.integer("block"), node.attributes["mode"]),)
        case "GlobalAveragePool":
            return (x[0].mean((2, 3), keepdim=True),)
        case "MixTemplates":
            return (torch.matmul(x[0], x[1]).view(node.shape()),)
        case "Requantize":
            return (x[0],)
    raise AssertionError(f"{node.op} is in OPERATORS but cannot be run")


def _depth_to_space(x: Tensor, block: int, mode: Attribute) -> Tensor:
    if mode == "DCR":
        count, channels, height, width = x.shape
        x = x.reshape(count, block * block, channels // block**2, height, width)
        x = x.transpose(1, 2).reshape(count, channels, height, width)
    return F.pixel_shuffle(x, block)
