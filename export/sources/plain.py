"""Networks that were trained on other pictures than RGB in [0, 1], made to take those.

A network of luma restores Y (ITU-R BT.601), and chroma is enlarged by bicubic interpolation, as
its papers do. Chroma is R - G and B - G here, which are zero to the bit where a picture is grey.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture.orders import fold_orders
from export.graph import Array, Graph, Node
from export.graph_module import GraphModule
from export.node import Attribute
from export.sources.foreign import Foreign
from export.sources.options import Colour, Options
from runtime.errors import UserError

_ORDERS: Mapping[Colour, list[int]] = {"rgb": [0, 1, 2], "bgr": [2, 1, 0]}

_BLACK_WHITE: Mapping[Colour, tuple[float, float]] = {"y": (0, 1), "y-video": (16 / 255, 235 / 255)}
"""Black and white in Y: over the whole range, as in JPEG, or as in video and MATLAB."""

_RED, _GREEN, _BLUE = _LUMA = (0.299, 0.587, 0.114)
"""What the colours weigh in Y."""

_DIFFERENCES = ((1, -1, 0), (0, -1, 1))
_COLOURS = ((1 - _RED, -_BLUE), (-_RED, -_BLUE), (-_RED, 1 - _BLUE))
"""Chroma from R, G, B; and R - Y, G - Y, B - Y from chroma."""


def in_plain_pictures(network: Foreign, options: Options) -> Foreign:
    """Return a network that takes and returns RGB in [0, 1], whatever it was trained on.

    Args:
        network: From pictures in the range and the colours that ``options`` names.
        options: What the person says of the network.

    Raises:
        UserError: If it takes another number of channels than these colours have.
    """
    plain: Colour = "y" if network.colours == 1 else "rgb"
    peak, colour = options.peak or 1, options.colour or plain
    if (peak, colour) == (1, "rgb"):
        return network
    if (colour in _BLACK_WHITE) != (network.colours == 1):
        raise UserError(
            f"{network.path}: takes pictures of {network.colours} channel"
            f"{'s' * (network.colours > 1)}, so --colour {colour} is wrong; leave it out or name "
            f"{' or '.join(_BLACK_WHITE if network.colours == 1 else _ORDERS)}"
        )
    digest = hashlib.sha256(f"{network.sha256} {peak} {colour}".encode())
    return dataclasses.replace(
        network,
        sha256=digest.hexdigest(),
        known={**network.known, "range": peak, "colour": colour},
        modules={
            scale: _between(_ends(colour, peak, scale), module)
            for scale, module in network.modules.items()
        },
        colours=3,
    )


@dataclass(frozen=True)
class _End:
    """A 1×1 convolution.

    Attributes:
        kernel: Out × in × 1 × 1.
        bias: One number for each output channel.
    """

    kernel: Array
    bias: Array

    @classmethod
    def of(cls, matrix: object, shift: float = 0) -> _End:
        """Return the convolution by a matrix and with the same shift of all channels."""
        kernel = np.asarray(matrix, np.float32)[:, :, None, None]
        return cls(kernel, np.full(len(kernel), shift, np.float32))

    @property
    def does_nothing(self) -> bool:
        """Whether it returns what it takes."""
        square = self.kernel[:, :, 0, 0]
        return not self.bias.any() and np.array_equal(square, np.eye(len(square)))


@dataclass(frozen=True)
class _Ends:
    """What stands around a network.

    Attributes:
        first: From RGB to what the network takes.
        last: From what it returns to RGB, or to luma.
        chroma: From RGB to chroma, and from enlarged chroma to what is added to luma; None for
            a network that restores colours itself.
        scale: Upscaling factor.
    """

    first: _End
    last: _End
    chroma: tuple[_End, _End] | None
    scale: int


def _ends(colour: Colour, peak: int, scale: int) -> _Ends:
    if colour not in _BLACK_WHITE:
        order = np.eye(3)[_ORDERS[colour]]
        return _Ends(_End.of(order * peak), _End.of(order.T / peak), None, scale)
    black, white = _BLACK_WHITE[colour]
    span = white - black
    first = _End.of(np.array([_LUMA]) * span * peak, black * peak)
    last = _End.of([[1 / (span * peak)]], -black / span)
    return _Ends(first, last, (_End.of(_DIFFERENCES), _End.of(_COLOURS)), scale)


def _between(ends: _Ends, module: nn.Module) -> nn.Module:
    """Return a module with its ends, which are folded into its convolutions where they can be."""
    if isinstance(module, GraphModule):
        return GraphModule(_with_ends(ends, module.graph)).eval()
    return _Between(ends, module).eval()


def _with_ends(ends: _Ends, graph: Graph) -> Graph:
    taken, made = f"{graph.input}.plain", f"{graph.output}.plain"
    constants: dict[str, Array] = {}

    def convolution(end: _End, value: str, output: str) -> Node:
        operands = (f"{output}.kernel", f"{output}.bias")
        constants.update(zip(operands, (end.kernel, end.bias), strict=True))
        return Node("Conv", output, (value, *operands), (output,), {"groups": 1})

    names = {graph.input: taken, graph.output: made}

    def around() -> Iterator[Node]:
        yield convolution(ends.first, graph.input, taken)
        for node in graph.nodes:
            inputs = tuple(names.get(name, name) for name in node.inputs)
            outputs = tuple(names.get(name, name) for name in node.outputs)
            yield dataclasses.replace(node, inputs=inputs, outputs=outputs)
        if ends.chroma is None:
            yield convolution(ends.last, made, graph.output)
            return
        luma, chroma, colours = made, f"{graph.output}.chroma", f"{graph.output}.colours"
        if not ends.last.does_nothing:
            luma = f"{graph.output}.luma"
            yield convolution(ends.last, made, luma)
        yield convolution(ends.chroma[0], graph.input, chroma)
        if ends.scale > 1:
            small, chroma = chroma, f"{chroma}.enlarged"
            cubic: dict[str, Attribute] = {"factor": ends.scale, "mode": "cubic"}
            yield Node("Interpolate", chroma, (small,), (chroma,), cubic)
        yield convolution(ends.chroma[1], chroma, colours)
        yield Node("Add", graph.output, (colours, luma), (graph.output,))

    nodes = tuple(around())
    wider = dataclasses.replace(
        graph, nodes=nodes, constants={**graph.constants, **constants}, colours=3
    )
    return fold_orders(wider.check())


class _Between(nn.Module):
    """A network with its ends."""

    def __init__(self, ends: _Ends, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.first, self.last = _Convolution(ends.first), _Convolution(ends.last)
        self.keeps_luma = ends.last.does_nothing
        self.chroma = nn.ModuleList(map(_Convolution, ends.chroma or ()))
        self.scale = ends.scale

    def forward(self, image: Tensor) -> Tensor:
        """Restore N × 3 × H × W pictures, RGB in [0, 1]."""
        restored: Tensor = self.network(self.first(image))
        if not self.keeps_luma:
            restored = self.last(restored)
        if not self.chroma:
            return restored
        differences, colours = self.chroma
        chroma = differences(image)
        if self.scale > 1:
            chroma = F.interpolate(chroma, scale_factor=self.scale, mode="bicubic")
        coloured: Tensor = colours(chroma) + restored
        return coloured


class _Convolution(nn.Module):
    """An end, which is no parameter of the network."""

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, end: _End) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.from_numpy(end.kernel))
        self.register_buffer("bias", torch.from_numpy(end.bias) if end.bias.any() else None)

    def forward(self, value: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(value, self.kernel, self.bias)
