"""Running a graph in torch, the reference for every rewrite, writer and quantized file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from export.graph import Graph, Node


def tensors_of(graph: Graph, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the graph's constants as torch tensors."""
    return {name: torch.from_numpy(array).to(dtype) for name, array in graph.constants.items()}


class Interpreter:
    """Runs a graph node by node; subclasses override how activations are seen and computed.

    Args:
        graph: Any graph, captured or lowered.
        constants: Constants in place of the graph's own, to train or quantize them.
    """

    def __init__(self, graph: Graph, constants: Mapping[str, Tensor] | None = None) -> None:
        self.graph = graph
        self.constants = constants

    def __call__(self, image: Tensor) -> Tensor:
        """Restore N × 3 × H × W pictures."""
        graph = self.graph
        constants = tensors_of(graph, image.dtype) if self.constants is None else self.constants
        last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
        values: dict[str, Tensor] = {graph.input: self.activation(graph.input, image)}
        for index, node in enumerate(graph.nodes):
            operands = [constants[n] if graph.is_constant(n) else values[n] for n in node.inputs]
            see = self.activation if graph.fused_relu(node) is None else self.before_relu
            for name, value in zip(node.outputs, self.apply(node, operands), strict=True):
                values[name] = see(name, value)
            for name in node.inputs:
                if last_use[name] == index and name not in graph.outputs:
                    values.pop(name, None)
        return values[graph.output]

    def activation(self, name: str, value: Tensor) -> Tensor:
        """Return the tensor that later nodes read as the activation ``name``.

        Called for every activation as soon as it exists, the image included, except activations
        that only a fused Relu reads (see ``Graph.fused_relu``), because files do not hold these.
        """
        return value

    def before_relu(self, name: str, value: Tensor) -> Tensor:
        """Return the tensor that a fused Relu reads as the activation ``name``."""
        return value

    def apply(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of a node."""
        return HANDLERS[node.op](node, operands)


def execute(graph: Graph, image: Tensor, constants: Mapping[str, Tensor] | None = None) -> Tensor:
    """Run ``graph`` on N × 3 × H × W pictures and return the restored ones."""
    return Interpreter(graph, constants)(image)


def activations_of(graph: Graph, image: Tensor, hidden: bool = False) -> dict[str, Tensor]:
    """Run ``graph`` on N × 3 × H × W pictures and return its activations by name.

    Args:
        graph: Any graph.
        image: The pictures.
        hidden: Include the activations that files do not hold (see ``Interpreter.before_relu``).
    """
    found: dict[str, Tensor] = {}

    class Recorder(Interpreter):
        def activation(self, name: str, value: Tensor) -> Tensor:
            found[name] = value
            return value

        def before_relu(self, name: str, value: Tensor) -> Tensor:
            return self.activation(name, value) if hidden else value

    Recorder(graph)(image)
    return found


def _conv(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    padding, groups = x[1].shape[-1] // 2, node.integer("groups")
    return (F.conv2d(x[0], x[1], x[2], padding=padding, groups=groups),)


def _general_conv(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    padded = F.pad(x[0], _torch_sides(node.sides("pads")))
    stride, dilation = node.integer("stride"), node.integer("dilation")
    return (F.conv2d(padded, x[1], x[2], stride, 0, dilation, node.integer("groups")),)


def _conv_transpose(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    stride, groups = node.integer("stride"), node.integer("groups")
    whole = F.conv_transpose2d(x[0], x[1], x[2], stride=stride, groups=groups)
    above, below, left, right = node.sides("crops")
    return (whole[..., above : whole.shape[2] - below, left : whole.shape[3] - right],)


def _pad(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    mode = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}[node.text("mode")]
    return (F.pad(x[0], _torch_sides(node.sides("pads")), mode),)


def _max_pool(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    padded = F.pad(x[0], _torch_sides(node.sides("pads")), value=-math.inf)
    return (F.max_pool2d(padded, node.window(), node.integer("stride")),)


def _torch_sides(sides: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return pixels above, below, left and right in torch's order: the last axis first."""
    return sides[2:] + sides[:2]


def _clip(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (x[0].clamp(node.number("minimum"), node.number("maximum")),)


def _depth_to_space(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    value, block = x[0], node.integer("block")
    if node.attributes["mode"] != "CRD":
        count, channels, height, width = value.shape
        value = value.reshape(count, block * block, channels // block**2, height, width)
        value = value.transpose(1, 2).reshape(count, channels, height, width)
    return (F.pixel_shuffle(value, block),)


def _interpolate(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    factor, mode = node.integer("factor"), modes[str(node.attributes["mode"])]
    return (F.interpolate(x[0], scale_factor=factor, mode=mode),)


def _channel_norm(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    planes = x[0].permute(0, 2, 3, 1)
    normal = F.layer_norm(planes, planes.shape[3:], x[1], x[2], node.number("epsilon"))
    return (normal.permute(0, 3, 1, 2),)


def _group_norm(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    groups, epsilon = node.integer("groups"), node.number("epsilon")
    if x[0].numel() == groups:  # torch refuses groups of one value, which are their own mean.
        return ((0 * x[0] + x[2].reshape(-1, 1, 1)),)
    return (F.group_norm(x[0], groups, x[1], x[2], epsilon),)


def _space_to_depth(node: Node, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    block = node.integer("block")
    blocks = F.pixel_unshuffle(x[0], block)
    if node.text("mode") == "DCR":
        count, channels, *size = blocks.shape
        blocks = blocks.reshape(count, channels // block**2, block**2, *size)
        blocks = blocks.transpose(1, 2).reshape(count, channels, *size)
    return (blocks,)


HANDLERS: Mapping[str, Callable[[Node, Sequence[Tensor]], tuple[Tensor, ...]]] = {
    "Conv": _conv,
    "GeneralConv": _general_conv,
    "ConvTranspose": _conv_transpose,
    "Relu": lambda node, x: (torch.relu(x[0]),),
    "LeakyRelu": lambda node, x: (F.leaky_relu(x[0], node.number("slope")),),
    "PRelu": lambda node, x: (F.prelu(x[0], x[1]),),
    "Clip": _clip,
    "Sigmoid": lambda node, x: (torch.sigmoid(x[0]),),
    "Silu": lambda node, x: (F.silu(x[0]),),
    "Gelu": lambda node, x: (F.gelu(x[0]),),
    "GeluTanh": lambda node, x: (F.gelu(x[0], approximate="tanh"),),
    "Mish": lambda node, x: (F.mish(x[0]),),
    "HardSwish": lambda node, x: (F.hardswish(x[0]),),
    "HardSigmoid": lambda node, x: (F.hardsigmoid(x[0]),),
    "Softplus": lambda node, x: (F.softplus(x[0]),),
    "Tanh": lambda node, x: (torch.tanh(x[0]),),
    "Sqrt": lambda node, x: (torch.sqrt(x[0]),),
    "Exp": lambda node, x: (torch.exp(x[0]),),
    "Abs": lambda node, x: (torch.abs(x[0]),),
    "Add": lambda node, x: (x[0] + x[1],),
    "Sub": lambda node, x: (x[0] - x[1],),
    "Mul": lambda node, x: (x[0] * x[1],),
    "Div": lambda node, x: (x[0] / x[1],),
    "Max": lambda node, x: (torch.maximum(x[0], x[1]),),
    "Min": lambda node, x: (torch.minimum(x[0], x[1]),),
    "ChannelNorm": _channel_norm,
    "GroupNorm": _group_norm,
    "Concat": lambda node, x: (torch.cat(list(x), dim=1),),
    "Split": lambda node, x: torch.split(x[0], list(node.sizes()), dim=1),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Pad": _pad,
    "MaxPool": _max_pool,
    "Resize": lambda node, x: (F.interpolate(x[0], scale_factor=node.integer("factor")),),
    "Interpolate": _interpolate,
    "GlobalAveragePool": lambda node, x: (x[0].mean((2, 3), keepdim=True),),
    "GlobalMaxPool": lambda node, x: (x[0].amax((2, 3), keepdim=True),),
    "ChannelMax": lambda node, x: (x[0].amax(1, keepdim=True),),
    "MixTemplates": lambda node, x: (torch.matmul(x[0], x[1]).view(node.shape()),),
    "Requantize": lambda node, x: (x[0],),
}
"""The outputs of each operator, computed from the node and its operands."""

REFUSED: Mapping[str, str] = {}
"""Operators that are not computed, and what to do instead: none."""
