"""Fixtures of the export package's tests.

Networks captured once a session, a minimal calibration, the simulation of an int8 file, cases of
every operator, and an interpreter of Core ML packages (Core ML itself runs on macOS only).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture.torch_capture import capture
from export.execution import Interpreter, activations_of, tensors_of
from export.graph import Graph, Node
from export.integers import (
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    weight_scales,
)
from export.operators import Trait
from export.scales import PIXELS, Quantization, ScaleTable
from quantize.simulator import CONVOLUTIONS
from runtime.manifest import Calibration
from training.networks.carn import AtScale, Carn, CarnConfig

Image = NDArray[np.float32]

CONFIGS: Mapping[str, CarnConfig] = {
    "carn": CarnConfig(),
    "carn-m": CarnConfig(groups=4, efficient=True, recursive=True),
}


@dataclass(frozen=True)
class Captured:
    """A network with seeded random weights, and its graph."""

    module: nn.Module
    graph: Graph

    def restore(self, image: Image) -> Image:
        """Return the picture restored by torch."""
        with torch.no_grad():
            restored: Image = self.module(torch.from_numpy(image)).numpy()
        return restored


@pytest.fixture(scope="session")
def captured() -> Callable[[str, int], Captured]:
    """Return a function from a model's name and a scale to the network, captured once."""

    @functools.cache
    def captured(model: str, scale: int) -> Captured:
        torch.manual_seed(20)
        module = AtScale(Carn(CONFIGS[model]), scale).eval()
        with torch.no_grad():
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight *= 1.8  # Spreads outputs over most of [0, 1], as training does.
        return Captured(module, capture(module))

    return captured


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int], Image]:
    """Return a function that makes a random 8-bit picture as 1 × 3 × height × width in [0, 1]."""

    def picture(height: int, width: int) -> Image:
        random = np.random.default_rng(height * 1000 + width)
        levels = random.integers(0, 256, (1, 3, height, width))
        return levels.astype(np.float32) / np.float32(255)

    return picture


@pytest.fixture(scope="session")
def calibrated() -> Callable[..., ScaleTable]:
    """Return a function that makes a table of min-max scales from one picture."""
    return _calibrated


def _calibrated(
    graph: Graph,
    image: Image,
    output: Quantization | None = PIXELS,
    requantized: tuple[tuple[str, str], ...] = (),
) -> ScaleTable:
    """Measure ranges and tie those that one concatenation, split or shuffle connects."""
    ranges: dict[str, tuple[float, float]] = {}
    tied = {value: value for value in map(graph.origin, graph.shapes())}

    def leader(value: str) -> str:
        return value if tied[value] == value else leader(tied[value])

    with torch.no_grad():
        for name, value in activations_of(graph, torch.from_numpy(image)).items():
            captured = graph.origin(name)
            low, high = ranges.get(captured, (0.0, 0.0))
            ranges[captured] = (min(low, float(value.min())), max(high, float(value.max())))
    for node in graph.nodes:
        if Trait.MOVES in node.operator.traits:
            target, *values = map(graph.origin, (*node.outputs, *node.inputs))
            for value in values:
                if (value, target) not in requantized:
                    tied[leader(value)] = leader(target)
    shared: dict[str, tuple[float, float]] = {}
    for value, (low, high) in ranges.items():
        known = shared.get(leader(value), (0.0, 0.0))
        shared[leader(value)] = (min(known[0], low), max(known[1], high))
    activations = {value: Quantization.of_range(*shared[leader(value)]) for value in ranges}
    activations[graph.input] = PIXELS
    if output is not None:
        activations[graph.output] = output
    nothing = Calibration((), "")
    return ScaleTable("test", graph.scale, "", "min-max", activations, requantized, nothing)


@pytest.fixture(scope="session")
def simulated() -> Callable[[Graph, ScaleTable, Image], Image]:
    """Return a function that runs a graph with every number rounded as int8 files round it."""
    return _simulated


def _simulated(graph: Graph, table: ScaleTable, image: Image) -> Image:
    constants = tensors_of(graph)
    for node in graph.nodes:
        if node.op == "PRelu":
            slopes = graph.constants[node.inputs[1]]
            scale = np.abs(slopes).max() / 127
            constants[node.inputs[1]] = torch.from_numpy(np.rint(slopes / scale) * scale)
        if node.op not in {*CONVOLUTIONS, "PRelu", "ChannelNorm", "GroupNorm"}:
            for name in filter(graph.is_constant, node.inputs):
                scale = np.abs(graph.constants[name]).max() / 127
                constants[name] = torch.from_numpy(np.rint(graph.constants[name] / scale) * scale)
        if node.op not in CONVOLUTIONS:
            continue
        value, weight, bias = node.inputs
        kernel, axis = graph.constants[weight], output_axis(node)
        shape = [-1 if index == axis else 1 for index in range(4)]
        scales, source = weight_scales(kernel, axis), table.of(graph.origin(value))
        rounded = quantized_weight(kernel, axis) * scales.reshape(shape)
        integers = quantized_bias(graph.constants[bias], kernel, source, axis)
        real = (integers * bias_scales(kernel, source, axis)).astype(np.float32)
        # A bias that convolutions share is another one for each of them.
        constants[weight], constants[f"{node.output}.bias"] = map(torch.from_numpy, (rounded, real))
    nodes = [_with_own_bias(node) for node in graph.nodes]
    own = {name: tensor.numpy() for name, tensor in constants.items()}

    class Rounding(Interpreter):
        def activation(self, name: str, value: Tensor) -> Tensor:
            quantization = table.of(graph.origin(name))
            integers = torch.round(value / quantization.scale) + quantization.zero_point
            return (integers.clamp(-128, 127) - quantization.zero_point) * quantization.scale

    with torch.no_grad():
        ready = dataclasses.replace(graph, nodes=tuple(nodes), constants=own)
        restored: Image = Rounding(ready)(torch.from_numpy(image)).numpy()
    return restored


def _with_own_bias(node: Node) -> Node:
    if node.op not in CONVOLUTIONS:
        return node
    inputs = (*node.inputs[:2], f"{node.output}.bias")
    return Node(node.op, node.name, inputs, node.outputs, node.attributes)


@dataclass(frozen=True)
class OperatorCase:
    """A graph around one operator, and the same computation in torch.

    Attributes:
        graph: From the picture to ``restored_image``, through the activations a and b, which have
            either sign, if the operator reads them.
        compute: From the picture, a and b to the restored picture, in torch.
        refused: Words of the message that refuses the operator, by a format (``tflite``), a
            precision (``int8``) or both (``tflite float32``).
    """

    graph: Graph
    compute: Callable[[Tensor, Tensor, Tensor], Tensor]
    refused: Mapping[str, str]

    def refusal(self, kind: str, precision: str) -> str | None:
        """Return words of the message if this format refuses the operator in this precision."""
        keys = (f"{kind} {precision}", kind, precision)
        return next((self.refused[key] for key in keys if key in self.refused), None)

    def restore(self, image: Image) -> Image:
        """Return the picture restored by torch."""
        picture = torch.from_numpy(image)
        constants = tensors_of(self.graph)
        a, b = (
            F.conv2d(picture, kernel, constants["bias"], padding=kernel.shape[-1] // 2)
            if (kernel := constants.get(f"w{name}")) is not None
            else picture
            for name in ("a", "b")
        )
        restored: Image = self.compute(picture, a, b).numpy()
        return restored


def _random(*shape: int) -> Image:
    random = np.random.default_rng(sum(shape))
    return random.normal(0, 0.25, shape).astype(np.float32)


def _last(op: str, *inputs: str, **attributes: Any) -> Node:
    return Node(op, op.lower(), inputs, ("restored_image",), attributes)


def _case(
    *nodes: Node,
    compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    channels: int = 3,
    refused: Mapping[str, str] | None = None,
    origins: Mapping[str, str] | None = None,
    **constants: Image,
) -> OperatorCase:
    """Return the case of ``nodes`` that read the picture, or a and b of so many channels."""
    read = {name for node in nodes for name in node.inputs}
    sizes = {name: size for name, size in (("a", 3), ("b", 1)) if name in read}
    for name, size in sizes.items():
        constants[f"w{name}"] = _random(channels, 3, size, size)
        constants["bias"] = _random(channels)
    convolutions = (
        Node("Conv", name, ("image", f"w{name}", "bias"), (name,), {"groups": 1}) for name in sizes
    )
    graph = Graph((*convolutions, *nodes), constants, origins=origins or {})
    return OperatorCase(graph, compute, refused or {})


def _convolution(outputs: int, size: int, groups: int = 1, inputs: int = 3) -> OperatorCase:
    weight, bias = _random(outputs, inputs // groups, size, size), _random(outputs)
    value = "image" if inputs == 3 else "a"
    node = _last("Conv", value, "kernel", "shifts", groups=groups)

    def compute(image: Tensor, a: Tensor, b: Tensor) -> Tensor:
        kernel, shifts = torch.from_numpy(weight), torch.from_numpy(bias)
        return F.conv2d(a, kernel, shifts, padding=size // 2, groups=groups)

    return _case(node, compute=compute, channels=inputs, kernel=weight, shifts=bias)


def _transposed(inputs: int, outputs: int, stride: int, groups: int = 1) -> OperatorCase:
    # Output channels of very different size: a wrong layout or quantized dimension shows.
    sizes = np.geomspace(1, 0.05, outputs // groups, dtype=np.float32).reshape(1, -1, 1, 1)
    weight, bias = _random(inputs, outputs // groups, stride, stride) * sizes, _random(outputs)
    sides = {"stride": stride, "groups": groups, "crops": (0, 0, 0, 0)}
    node = _last("ConvTranspose", "a", "kernel", "shifts", **sides)

    def compute(image: Tensor, a: Tensor, b: Tensor) -> Tensor:
        kernel, shifts = torch.from_numpy(weight), torch.from_numpy(bias)
        return F.conv_transpose2d(a, kernel, shifts, stride=stride, groups=groups)

    refused = dict.fromkeys(("tflite", "int8"), f"in {groups} groups") if groups > 1 else {}
    return _case(
        node, compute=compute, channels=inputs, refused=refused, kernel=weight, shifts=bias
    )


def _general(
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, int, int, int],
    dilation: int = 1,
    groups: int = 1,
    usual: bool = False,
) -> OperatorCase:
    """Return a convolution of any kind; a shuffle behind it makes up for its stride."""
    outputs = 2 * stride**2
    weight, bias = _random(outputs, 4 // groups, *kernel), _random(outputs)
    given = {"groups": groups, "stride": stride, "dilation": dilation, "pads": pads}
    convolve = Node("GeneralConv", "general", ("a", "kernel", "shifts"), ("blocks",), given)

    def compute(image: Tensor, a: Tensor, b: Tensor) -> Tensor:
        above, below, left, right = pads
        constants = torch.from_numpy(weight), torch.from_numpy(bias)
        padded = F.pad(a, (left, right, above, below))
        made = F.conv2d(padded, *constants, stride, 0, dilation, groups)
        return F.pixel_shuffle(
            made.unflatten(1, (stride**2, 2)).transpose(1, 2).flatten(1, 2), stride
        )

    return _case(
        convolve,
        _last("DepthToSpace", "blocks", block=stride, mode="DCR"),
        compute=compute,
        channels=4,
        refused={} if usual else {"tflite": "no GeneralConv .* 'pad_before_convolutions' first"},
        kernel=weight,
        shifts=bias,
    )


def _general_transposed(
    kernel: tuple[int, int], stride: int, crops: tuple[int, int, int, int], groups: int = 1
) -> OperatorCase:
    weight, bias = _random(4, 6 // groups, *kernel), _random(6)
    given = {"stride": stride, "groups": groups, "crops": crops}
    node = _last("ConvTranspose", "a", "kernel", "shifts", **given)

    def compute(image: Tensor, a: Tensor, b: Tensor) -> Tensor:
        constants = torch.from_numpy(weight), torch.from_numpy(bias)
        above, below, left, right = (-side for side in crops)
        whole = F.conv_transpose2d(a, *constants, stride, groups=groups)
        return F.pad(whole, (left, right, above, below))

    refused = {"int8": f"in {groups} groups"} if groups > 1 else {}
    refused |= {"tflite": "'transposed_by_shuffles' first"} if groups == 1 else {}
    floats = ("tflite float32", "tflite float16")
    refused |= dict.fromkeys(floats, "'transposed_by_shuffles' first")
    return _case(node, compute=compute, channels=4, refused=refused, kernel=weight, shifts=bias)


def _padded(mode: str, *pads: int) -> OperatorCase:
    given = {"pads": pads, "mode": mode}
    modes = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}
    above, below, left, right = pads
    return _case(
        _last("Pad", "a", **given),
        compute=lambda image, a, b: F.pad(a, (left, right, above, below), modes[mode]),
    )


def _shuffle(block: int, mode: str) -> OperatorCase:
    def compute(image: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if mode == "CRD":
            return F.pixel_shuffle(a, block)
        blocks = a.reshape(1, block, block, 3, *a.shape[2:]).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(1, 3, block * a.shape[2], block * a.shape[3])

    return _case(
        _last("DepthToSpace", "a", block=block, mode=mode),
        compute=compute,
        channels=3 * block**2,
        refused={"tflite": "use_dcr_shuffles"} if mode == "CRD" else {},
    )


_MEANS = np.float32([0.5, 0.4, 0.6]).reshape(1, 3, 1, 1)
_SLOPES = np.float32([0.25, 0.8, -0.3])
_MIXED, _BANK = np.float32([0.5, -2]), _random(2, 5 * 3 * 3 * 3)
_TENTH = np.float32([[[[0.1]]]])

_NORM_SCALE = np.linspace(0.5, 1.5, 6, dtype=np.float32)
_NORM_SHIFT = np.linspace(-0.2, 0.1, 6, dtype=np.float32)


def _by_hand(grouped: Tensor, epsilon: float, axes: tuple[int, ...] = (2,)) -> Tensor:
    """Normalize 1 × groups × channels × H × W over ``axes``; six channels leave."""
    mean = grouped.mean(axes, keepdim=True)
    variance = (grouped**2).mean(axes, keepdim=True) - mean**2
    normal = ((grouped - mean) / (variance + epsilon).sqrt()).reshape(1, 6, *grouped.shape[3:])
    scale, shift = torch.from_numpy(_NORM_SCALE), torch.from_numpy(_NORM_SHIFT)
    return normal * scale.view(6, 1, 1) + shift.view(6, 1, 1)


OPERATOR_CASES: Mapping[str, OperatorCase] = {
    "Conv 1×1": _convolution(5, 1),
    "Conv 3×3": _convolution(5, 3),
    "Conv 5×5": _convolution(4, 5),
    "Conv in groups": _convolution(8, 3, groups=4, inputs=8),
    "Conv per channel": _convolution(3, 3, groups=3),
    "ConvTranspose": _transposed(4, 6, 2),
    "ConvTranspose 3×3": _transposed(3, 2, 3),
    "ConvTranspose in groups": _transposed(6, 9, 2, groups=3),
    "GeneralConv 2×2 in strides": _general((2, 2), 2, (0, 0, 0, 0), usual=True),
    "GeneralConv 3×3 in strides": _general((3, 3), 2, (1, 1, 1, 1)),
    "GeneralConv 3×3 in strides, the odd pixel behind": _general(
        (3, 3), 2, (0, 1, 0, 1), usual=True
    ),
    "GeneralConv 5×3 in strides of 3": _general((5, 3), 3, (1, 1, 0, 0), usual=True),
    "GeneralConv 1×7": _general((1, 7), 1, (0, 0, 3, 3), usual=True),
    "GeneralConv dilated": _general((3, 3), 1, (2, 2, 2, 2), dilation=2, usual=True),
    "GeneralConv without padding": _general((3, 3), 1, (0, 0, 0, 0), usual=True),
    "GeneralConv padded at one side": _general((2, 4), 1, (1, 0, 3, 0)),
    "GeneralConv in groups": _general((4, 4), 2, (1, 1, 1, 1), groups=2, usual=True),
    "ConvTranspose 4×4 cropped": _general_transposed((4, 4), 2, (1, 1, 1, 1)),
    "ConvTranspose 4×4 cropped by 3": _general_transposed((4, 4), 2, (3, 3, 3, 3)),
    "ConvTranspose 3×3 in strides of 2": _general_transposed((3, 3), 2, (1, 0, 1, 0)),
    "ConvTranspose 5×3 uncropped": _general_transposed((5, 3), 3, (0, 0, 0, 0)),
    "ConvTranspose 3×3 of stride 1": _general_transposed((3, 3), 1, (1, 1, 1, 1), groups=2),
    "SpaceToDepth": _case(
        Node("SpaceToDepth", "unshuffle", ("a",), ("blocks",), {"block": 2, "mode": "CRD"}),
        _last("DepthToSpace", "blocks", block=2, mode="DCR"),
        compute=lambda image, a, b: F.pixel_shuffle(
            F.pixel_unshuffle(a, 2).unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2), 2
        ),
        refused=dict.fromkeys(
            ("tflite", "onnx", "coreml", "coreai", "int8"), "'convolve_blocks' first"
        ),
    ),
    "Pad with zeros": _padded("zeros", 1, 0, 2, 3),
    "Pad by reflection": _padded("reflect", 4, 3, 2, 0),
    "Pad with the edge": _padded("edge", 0, 2, 1, 3),
    "Pad nothing": _padded("zeros", 0, 0, 0, 0),
    "crop": _padded("zeros", -1, -2, -1, 0),
    "crop and pad": _padded("zeros", 2, -1, 0, 1),
    "MaxPool": _case(
        Node(
            "MaxPool", "pool", ("a",), ("most",), {"kernel": (2, 2), "stride": 2, "pads": (0,) * 4}
        ),
        _last("DepthToSpace", "most", block=2, mode="DCR"),
        compute=lambda image, a, b: F.pixel_shuffle(
            F.max_pool2d(a, 2).unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2), 2
        ),
        channels=12,
    ),
    "MaxPool of neighbours": _case(
        _last("MaxPool", "a", kernel=(3, 5), stride=1, pads=(1, 1, 2, 2)),
        compute=lambda image, a, b: F.max_pool2d(a, (3, 5), 1, (1, 2)),
    ),
    "MaxPool padded in front": _case(
        _last("MaxPool", "a", kernel=(2, 2), stride=1, pads=(1, 0, 1, 0)),
        compute=lambda image, a, b: F.max_pool2d(F.pad(a, (1, 0, 1, 0), value=-torch.inf), 2, 1),
        refused={"tflite": r"no MaxPool with padding \(1, 0, 1, 0\)"},
    ),
    "Relu": _case(_last("Relu", "a"), compute=lambda image, a, b: a.relu()),
    "Relu of a value that others read": _case(
        Node("Relu", "relu", ("a",), ("r",)),
        _last("Add", "r", "a"),
        compute=lambda image, a, b: a.relu() + a,
    ),
    "LeakyRelu": _case(
        _last("LeakyRelu", "a", slope=0.2), compute=lambda image, a, b: F.leaky_relu(a, 0.2)
    ),
    "PRelu": _case(
        _last("PRelu", "a", "slope"),
        compute=lambda image, a, b: a.relu() - torch.tensor(_SLOPES).view(3, 1, 1) * (-a).relu(),
        slope=_SLOPES,
    ),
    "Clip": _case(
        _last("Clip", "a", minimum=-0.5, maximum=0.75),
        compute=lambda image, a, b: a.clamp(-0.5, 0.75),
    ),
    "Clip twice": _case(
        Node("Clip", "clip", ("a",), ("c",), {"minimum": -0.6, "maximum": 1.0}),
        _last("Clip", "c", minimum=-0.5, maximum=0.75),
        compute=lambda image, a, b: a.clamp(-0.5, 0.75),
    ),
    "Sigmoid": _case(_last("Sigmoid", "a"), compute=lambda image, a, b: a.sigmoid()),
    "Silu": _case(_last("Silu", "a"), compute=lambda image, a, b: a * a.sigmoid()),
    "Gelu": _case(_last("Gelu", "a"), compute=lambda image, a, b: a / 2 * (1 + (a / 2**0.5).erf())),
    "GeluTanh": _case(
        _last("GeluTanh", "a"),
        compute=lambda image, a, b: F.gelu(a, approximate="tanh"),
    ),
    "Mish": _case(_last("Mish", "a"), compute=lambda image, a, b: a * a.exp().add(1).log().tanh()),
    "HardSwish": _case(
        _last("HardSwish", "a"), compute=lambda image, a, b: a * (a + 3).clamp(0, 6) / 6
    ),
    "HardSigmoid": _case(
        Node("Mul", "mul", ("a", "four"), ("wide",)),
        _last("HardSigmoid", "wide"),
        compute=lambda image, a, b: (4 * a / 6 + 0.5).clamp(0, 1),
        four=np.float32([[[[4]]]]),
    ),
    "Softplus": _case(_last("Softplus", "a"), compute=lambda image, a, b: a.exp().add(1).log()),
    "Tanh": _case(_last("Tanh", "a"), compute=lambda image, a, b: 2 * (2 * a).sigmoid() - 1),
    "Sqrt": _case(
        Node("Relu", "relu", ("a",), ("r",)),
        Node("Add", "add", ("r", "tenth"), ("s",)),
        _last("Sqrt", "s"),
        compute=lambda image, a, b: (a.relu() + 0.1) ** 0.5,
        tenth=_TENTH,
    ),
    "Exp": _case(_last("Exp", "a"), compute=lambda image, a, b: np.e**a),
    "Abs": _case(_last("Abs", "a"), compute=lambda image, a, b: a.relu() + (-a).relu()),
    "Add": _case(_last("Add", "a", "b"), compute=lambda image, a, b: a + b),
    "Add and Relu": _case(
        Node("Add", "add", ("a", "b"), ("s",)),
        _last("Relu", "s"),
        compute=lambda image, a, b: (a + b).relu(),
    ),
    "Add of a constant": _case(
        _last("Add", "a", "means"),
        compute=lambda image, a, b: a + torch.from_numpy(_MEANS),
        means=_MEANS,
    ),
    "Sub": _case(_last("Sub", "a", "b"), compute=lambda image, a, b: a - b),
    "Sub and Relu": _case(
        Node("Sub", "sub", ("a", "b"), ("s",)),
        _last("Relu", "s"),
        compute=lambda image, a, b: (a - b).relu(),
    ),
    "Sub from a constant": _case(
        _last("Sub", "means", "image"),
        compute=lambda image, a, b: torch.from_numpy(_MEANS) - image,
        means=_MEANS,
    ),
    "Mul": _case(_last("Mul", "a", "b"), compute=lambda image, a, b: a * b),
    "Div": _case(
        Node("Exp", "exp", ("b",), ("e",)),
        _last("Div", "a", "e"),
        compute=lambda image, a, b: a * (-b).exp(),
    ),
    "Div of a number": _case(
        Node("Sigmoid", "sigmoid", ("a",), ("s",)),
        Node("Add", "add", ("s", "means"), ("d",)),
        _last("Div", "tenth", "d"),
        compute=lambda image, a, b: 0.1 / (a.sigmoid() + torch.from_numpy(_MEANS)),
        tenth=_TENTH,
        means=_MEANS,
    ),
    "Max": _case(_last("Max", "a", "b"), compute=lambda image, a, b: (a - b).relu() + b),
    "Max of constants": _case(
        _last("Max", "image", "means"),
        compute=lambda image, a, b: image.maximum(torch.from_numpy(_MEANS)),
        means=_MEANS,
    ),
    "Min": _case(_last("Min", "a", "b"), compute=lambda image, a, b: a - (a - b).relu()),
    "Min with a number": _case(
        _last("Min", "a", "tenth"),
        compute=lambda image, a, b: a.clamp(max=0.1),
        tenth=_TENTH,
    ),
    "ChannelNorm": _case(
        _last("ChannelNorm", "a", "scale", "shift", epsilon=1e-3),
        compute=lambda image, a, b: _by_hand(a.unsqueeze(1), 1e-3),
        channels=6,
        scale=_NORM_SCALE,
        shift=_NORM_SHIFT,
    ),
    "GroupNorm": _case(
        _last("GroupNorm", "a", "scale", "shift", groups=2, epsilon=1e-2),
        compute=lambda image, a, b: _by_hand(a.reshape(1, 2, 3, *a.shape[2:]), 1e-2, (2, 3, 4)),
        channels=6,
        scale=_NORM_SCALE,
        shift=_NORM_SHIFT,
    ),
    "GroupNorm of single channels": _case(
        _last("GroupNorm", "a", "scale", "shift", groups=6, epsilon=1e-2),
        compute=lambda image, a, b: _by_hand(a.reshape(1, 6, 1, *a.shape[2:]), 1e-2, (2, 3, 4)),
        channels=6,
        scale=_NORM_SCALE,
        shift=_NORM_SHIFT,
    ),
    "Mul by a constant": _case(
        _last("Mul", "a", "means"),
        compute=lambda image, a, b: a * torch.from_numpy(_MEANS),
        means=_MEANS,
    ),
    "Mul by a number": _case(
        Node("Mul", "mul", ("a", "tenth"), ("part",)),
        _last("Add", "part", "b"),
        compute=lambda image, a, b: 0.1 * a + b,
        tenth=_TENTH,
    ),
    "Sub of a number": _case(
        Node("Sigmoid", "sigmoid", ("a",), ("s",)),
        Node("Sub", "sub", ("s", "tenth"), ("centred",)),
        _last("Mul", "centred", "b"),
        compute=lambda image, a, b: (a.sigmoid() - 0.1) * b,
        tenth=_TENTH,
    ),
    "Mul by a pooled value": _case(
        Node("GlobalAveragePool", "pool", ("a",), ("mean",)),
        Node("Sigmoid", "gate", ("mean",), ("weight",)),
        _last("Mul", "b", "weight"),
        compute=lambda image, a, b: b * a.mean((2, 3), keepdim=True).sigmoid(),
    ),
    "Concat": _case(
        _last("Concat", "a", "b", "a"), compute=lambda image, a, b: torch.cat([a, b, a], 1)
    ),
    "Split": _case(
        Node("Split", "split", ("a",), ("one", "two", "three"), {"sizes": (2, 2, 2)}),
        _last("Concat", "three", "one", "two"),
        compute=lambda image, a, b: torch.cat([a[:, 4:], a[:, :4]], 1),
        channels=6,
    ),
    "Split unevenly": _case(
        Node("Split", "split", ("a",), ("one", "two"), {"sizes": (1, 2)}),
        _last("Concat", "two", "one"),
        compute=lambda image, a, b: torch.cat([a[:, 1:], a[:, :1]], 1),
    ),
    "DepthToSpace CRD": _shuffle(3, "CRD"),
    "DepthToSpace DCR 2": _shuffle(2, "DCR"),
    "DepthToSpace DCR 3": _shuffle(3, "DCR"),
    "Resize": _case(
        _last("Resize", "a", factor=3),
        compute=lambda image, a, b: F.interpolate(a, scale_factor=3),
        refused=dict.fromkeys(
            ("tflite", "onnx", "coreml", "coreai", "int8"), "'resize_by_shuffles' first"
        ),
    ),
    **{
        f"Interpolate {mode} by {factor}": _case(
            _last("Interpolate", "a", factor=factor, mode=mode),
            compute=lambda image, a, b, factor=factor, mode=mode: F.interpolate(
                a, scale_factor=factor, mode=f"bi{mode}"
            ),
            refused=dict.fromkeys(
                ("tflite", "onnx", "coreml", "coreai", "int8"),
                "'interpolate_by_convolutions' first",
            ),
        )
        for factor, mode in ((2, "linear"), (3, "linear"), (2, "cubic"), (3, "cubic"))
    },
    "GlobalAveragePool": _case(
        _last("GlobalAveragePool", "a"), compute=lambda image, a, b: a.mean((2, 3), keepdim=True)
    ),
    "GlobalMaxPool": _case(
        _last("GlobalMaxPool", "a"),
        compute=lambda image, a, b: a.flatten(2).max(2)[0][..., None, None],
    ),
    "ChannelMax": _case(
        _last("ChannelMax", "a"), compute=lambda image, a, b: a.max(1, keepdim=True)[0]
    ),
    "MixTemplates": _case(
        Node("MixTemplates", "bank", ("mixed", "bank"), ("kernel",), {"shape": (5, 3, 3, 3)}),
        _last("Conv", "image", "kernel", "shifts", groups=1),
        compute=lambda image, a, b: F.conv2d(
            image,
            torch.from_numpy(_MIXED @ _BANK).view(5, 3, 3, 3),
            torch.from_numpy(_random(5)),
            padding=1,
        ),
        refused=dict.fromkeys(
            ("tflite", "coreml", "coreai", "int8"), "bank: .* 'fold_template_bank'"
        ),
        mixed=_MIXED,
        bank=_BANK,
        shifts=_random(5),
    ),
    "Requantize": _case(
        Node("Requantize", "requantize", ("a",), ("changed",)),
        Node("Concat", "concat", ("changed", "b"), ("both",)),
        _last("Relu", "both"),
        compute=lambda image, a, b: torch.cat([a, b], 1).relu(),
        refused=dict.fromkeys(("tflite float32", "tflite float16"), "only int8 files requantize"),
        origins={"changed": "both"},
    ),
}


@pytest.fixture(params=OPERATOR_CASES)
def operator_case(request: pytest.FixtureRequest) -> OperatorCase:
    """Return a case of an operator of the vocabulary, one after another."""
    return OPERATOR_CASES[request.param]


@pytest.fixture(scope="session")
def operator_graphs() -> Mapping[str, Graph]:
    """Return the graphs of all cases by name."""
    return {name: case.graph for name, case in OPERATOR_CASES.items()}


@pytest.fixture(scope="session")
def small_graph() -> Graph:
    """Return a graph of scale 3 that takes no time: a convolution and a shuffle."""
    return OPERATOR_CASES["DepthToSpace CRD"].graph


@pytest.fixture(scope="session")
def open_package() -> Callable[[Path], Callable[[Image], Image]]:
    """Return a function that reads a Core ML package and returns a function that runs it.

    A package of several inputs and outputs takes and returns arrays in their order.
    """
    return lambda path: functools.partial(_run, _read_package(path).functions["main"])


def _run(function: Any, *images: Image) -> Any:
    values: dict[str, Any] = {
        start.name: torch.from_numpy(image)
        for start, image in zip(function.inputs.values(), images, strict=True)
    }
    for operation in function.operations:
        if operation.op_type == "const":
            continue
        operands = {
            name: _value(given, values)
            for name, given in operation.inputs.items()
            if given is not None
        }
        made = _MIL_OPERATIONS[operation.op_type](**operands)
        results = made if isinstance(made, tuple) else (made,)
        for variable, result in zip(operation.outputs, results, strict=True):
            values[variable.name] = _as_stored(result, variable)
    results = [values[end.name].numpy() for end in function.outputs]
    return results[0] if len(results) == 1 else results


def _read_package(path: Path) -> Any:
    importlib.import_module(
        "export.writers.coreml_writer"
    )  # imports coremltools without its chatter
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    specification = model.get_spec()
    return load(specification, specification.specificationVersion, model.weights_dir)


def _value(variable: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(variable, (list, tuple)):
        return [_value(one, values) for one in variable]
    return values[variable.name] if variable.name in values else _tensor(variable.val)


def _tensor(value: Any) -> Any:
    """Return numbers as a tensor, float16 ones widened; anything else as it is."""
    if not isinstance(value, (np.ndarray, np.floating)):
        return value
    array = np.asarray(value)
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float16 else array.copy())


def _as_stored(result: Tensor, variable: Any) -> Tensor:
    """Check a result against its declaration; round it where the program holds float16."""
    declared = [extent if isinstance(extent, int) else None for extent in variable.shape]
    for found, known in zip(result.shape, declared, strict=True):
        assert known in {None, found}, f"{variable.name}: {result.shape} is declared as {declared}"
    kind = _name_of_type(variable.dtype)
    assert kind in {"fp16", "fp32", "uint8"}, kind
    return result.half().float() if kind == "fp16" else result


def _name_of_type(kind: Any) -> str:
    from coremltools.converters.mil.mil import types

    name: str = types.builtin_to_string(kind)
    return name


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    strides: NDArray[np.int32],
    pad_type: str,
    pad: NDArray[np.int32],
    dilations: NDArray[np.int32],
    groups: int,
) -> Tensor:
    assert pad_type == "custom"
    top, bottom, left, right = pad.tolist()
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(
        padded, weight, bias, tuple(strides.tolist()), 0, tuple(dilations.tolist()), int(groups)
    )


def _convolve_transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    pad: NDArray[np.int32],
    pad_type: str,
    strides: NDArray[np.int32],
    dilations: NDArray[np.int32],
    groups: int,
) -> Tensor:
    assert (pad_type == "custom" or pad.tolist() == [0] * 4) and dilations.tolist() == [1, 1]
    strides = tuple(strides.tolist())
    top, bottom, left, right = (-side for side in pad.tolist())
    whole = F.conv_transpose2d(x, weight, bias, stride=strides, groups=int(groups))
    return F.pad(whole, (left, right, top, bottom))


def _pad(x: Tensor, pad: NDArray[np.int32], mode: str, constant_val: Tensor) -> Tensor:
    ahead, (top, bottom, left, right) = pad.tolist()[:4], pad.tolist()[4:]
    assert ahead == [0] * 4 and float(constant_val) == 0
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "replicate"}
    return F.pad(x, (left, right, top, bottom), modes[mode])


def _slice(
    x: Tensor,
    begin: NDArray[np.int32],
    end: NDArray[np.int32],
    end_mask: NDArray[np.bool_],
    **others: Any,
) -> Tensor:
    assert not any(np.any(other) for name, other in others.items() if name != "stride")
    ends = [None if open_ended else int(one) for one, open_ended in zip(end, end_mask, strict=True)]
    return x[tuple(map(slice, begin.tolist(), ends))]


def _max_pool(
    x: Tensor,
    kernel_sizes: NDArray[np.int32],
    strides: NDArray[np.int32],
    pad_type: str,
    pad: NDArray[np.int32],
    ceil_mode: bool,
) -> Tensor:
    assert pad_type == "custom" and not ceil_mode
    top, bottom, left, right = pad.tolist()
    padded = F.pad(x, (left, right, top, bottom), value=-torch.inf)
    return F.max_pool2d(padded, tuple(kernel_sizes.tolist()), tuple(strides.tolist()))


def _concatenate(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    assert not interleave
    return torch.cat(values, dim=int(axis))


def _split(x: Tensor, split_sizes: NDArray[np.int32], axis: int) -> tuple[Tensor, ...]:
    return torch.split(x, split_sizes.tolist(), dim=int(axis))


def _depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Rearrange as tf.nn.depth_to_space does; coremltools converts that to this operation."""
    count, channels, height, width = x.shape
    r = int(block_size)
    blocks = x.reshape(count, r, r, channels // r**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * r, width * r)


def _gelu(x: Tensor, mode: str) -> Tensor:
    names = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}
    return F.gelu(x, approximate=names[mode])


def _average(x: Tensor, axes: NDArray[np.int32], keep_dims: bool) -> Tensor:
    return x.mean(axes.tolist(), keepdim=bool(keep_dims))


def _quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: np.uint8 | int = 0
) -> Tensor:
    assert output_dtype == "uint8"
    return (torch.round(input / scale) + int(zero_point)).clamp(0, 255).to(torch.uint8)


def _dequantize(input: Tensor, scale: Tensor, zero_point: np.uint8 | int = 0) -> Tensor:
    return (input.float() - int(zero_point)) * scale


def _dequantize_constant(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    shape = [-1 if index == axis else 1 for index in range(quantized_data.dim())]
    shifted = quantized_data.float() - zero_point.float().reshape(shape)
    return shifted * scale.float().reshape(shape)


_MIL_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "cast": lambda x, dtype: x,
    "identity": lambda x: x,
    "conv": _convolve,
    "conv_transpose": _convolve_transposed,
    "pad": _pad,
    "slice_by_index": _slice,
    "max_pool": _max_pool,
    "relu": lambda x: torch.relu(x),
    "prelu": lambda x, alpha: F.prelu(x, alpha),
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, float(alpha)),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "round": lambda x: torch.round(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "maximum": lambda x, y: torch.maximum(x, torch.as_tensor(y)),
    "minimum": lambda x, y: torch.minimum(x, torch.as_tensor(y)),
    "silu": lambda x: F.silu(x),
    "gelu": _gelu,
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "softplus": lambda x: F.softplus(x),
    "tanh": lambda x: torch.tanh(x),
    "sqrt": lambda x: torch.sqrt(x),
    "exp": lambda x: torch.exp(x),
    "abs": lambda x: torch.abs(x),
    "concat": _concatenate,
    "split": _split,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "depth_to_space": _depth_to_space,
    "reduce_mean": _average,
    "reduce_max": lambda x, axes, keep_dims: x.amax(axes.tolist(), keepdim=bool(keep_dims)),
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_affine_dequantize": _dequantize_constant,
}
