"""Capture: the graphs of networks, and refusals that name the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture.onnx_reading import read_model
from export.capture.torch_capture import capture
from export.errors import CannotLower, InvalidGraph, UnsupportedOperators
from export.execution import execute
from runtime.sides import ANY_SIDES, Sides

Image = NDArray[np.float32]
Capture = Callable[[str, int], Any]
Picture = Callable[[int, int], Image]


class Applied(nn.Module):
    """A convolution, and a function of its result and the picture."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(self.conv(image), image)


@pytest.mark.parametrize(
    ("model", "scale", "parameters"),
    # Parameters of ECCV 2018 (DESIGN.md section 5) and the three means.
    [
        ("carn", 4, 1_111_875 + 3),
        ("carn-m", 4, 294_147 + 3),
        pytest.param("carn", 3, 1_148_803 + 3, marks=pytest.mark.slow),
        pytest.param("carn-m", 3, 303_427 + 3, marks=pytest.mark.slow),
        pytest.param("carn", 2, 964_163 + 3, marks=pytest.mark.slow),
        pytest.param("carn-m", 2, 257_027 + 3, marks=pytest.mark.slow),
    ],
)
def test_a_network_keeps_its_parameters_and_its_outputs(
    model: str, scale: int, parameters: int, captured: Capture, picture: Picture
) -> None:
    network = captured(model, scale)
    assert sum(array.size for array in network.graph.constants.values()) == parameters
    for size in [(9, 13), (1, 1)]:
        image = picture(*size)
        with torch.no_grad():
            found = execute(network.graph, torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(found, network.restore(image), atol=1e-6, rtol=0)


def test_the_operators_of_carn(captured: Capture) -> None:
    # Per cascading block: three residual blocks of two convolutions and a sum, three fusions; the
    # same three fusions over the blocks; entry, exit and two upsampling stages; means twice.
    assert captured("carn", 4).graph.operators() == {
        "Add": 9 + 1,
        "Concat": 9 + 3,
        "Conv": 9 * 2 + 9 + 3 + 2 + 2,
        "DepthToSpace": 2,
        "Relu": 9 * 2 + 9 + 3 + 2,
        "Sub": 1,
    }


def test_nodes_are_named_after_their_modules(captured: Capture) -> None:
    convolutions = [n.name for n in captured("carn-m", 4).graph.nodes if n.op == "Conv"]
    assert convolutions[0] == "entry" and convolutions[-1] == "exit"
    # The one block of a cascade is used three times.
    assert convolutions.count("body.stages.0.stages.0.body.0") == 3


@pytest.mark.parametrize(
    ("function", "operators"),
    [
        (lambda x, image: x.clamp(-0.1, 0.2), {"Clip": 1, "Conv": 1}),
        (lambda x, image: F.relu6(9 * x), {"Clip": 1, "Conv": 1, "Mul": 1}),
        (lambda x, image: F.leaky_relu(x, 0.2), {"Conv": 1, "LeakyRelu": 1}),
        (
            lambda x, image: F.prelu(x, torch.linspace(-0.5, 1, 8)),
            {"Conv": 1, "PRelu": 1},
        ),
        (lambda x, image: F.prelu(x, torch.full((8,), 0.3)), {"Conv": 1, "LeakyRelu": 1}),
        (lambda x, image: F.prelu(x, torch.tensor([0.3])), {"Conv": 1, "LeakyRelu": 1}),
        (lambda x, image: F.silu(x), {"Conv": 1, "Silu": 1}),
        (lambda x, image: 0.5 - x, {"Conv": 1, "Sub": 1}),
        (
            lambda x, image: x * F.adaptive_avg_pool2d(x, 1),
            {"Conv": 1, "GlobalAveragePool": 1, "Mul": 1},
        ),
        (
            lambda x, image: x * x.mean((2, 3), keepdim=True),
            {"Conv": 1, "GlobalAveragePool": 1, "Mul": 1},
        ),
        (
            lambda x, image: x * x.amax((2, 3), keepdim=True) * F.adaptive_max_pool2d(x, 1),
            {"Conv": 1, "GlobalMaxPool": 2, "Mul": 2},
        ),
        (
            lambda x, image: x - x.amax(1, keepdim=True),
            {"ChannelMax": 1, "Conv": 1, "Sub": 1},
        ),
        (
            lambda x, image: F.pixel_shuffle(torch.cat([x, x], 1), 2),
            {"Concat": 1, "Conv": 1, "DepthToSpace": 1},
        ),
        (
            lambda x, image: 0.5 + x / 3 + 0.1 * F.interpolate(x, scale_factor=1),
            {"Add": 2, "Conv": 1, "Mul": 2, "Resize": 1},
        ),
        (lambda x, image: F.interpolate(x, scale_factor=3), {"Conv": 1, "Resize": 1}),
        (
            lambda x, image: F.interpolate(x, scale_factor=3, mode="bicubic"),
            {"Conv": 1, "Interpolate": 1},
        ),
        (
            lambda x, image: torch.minimum(x, x**2) / (torch.maximum(x, torch.tensor(0.5)) + 1),
            {"Add": 1, "Conv": 1, "Div": 1, "Max": 1, "Min": 1, "Mul": 1},
        ),
        (
            lambda x, image: x.clamp(min=0.1) / x.clamp(max=-0.1),
            {"Conv": 1, "Div": 1, "Max": 1, "Min": 1},
        ),
        (lambda x, image: x[:, :3] * x[:, 3:6], {"Conv": 1, "Mul": 1, "Split": 1}),
        (lambda x, image: x[:, 1:] * x[:, :-1], {"Conv": 1, "Mul": 1, "Split": 2}),
        (lambda x, image: image.flip(1), {"Conv": 1}),
        (
            lambda x, image: F.linear(
                F.layer_norm(x.permute(0, 2, 3, 1), (8,), torch.linspace(1, 2, 8)),
                torch.linspace(-1, 1, 24).view(3, 8),
            ).permute(0, 3, 1, 2),
            {"ChannelNorm": 1, "Conv": 2},
        ),
        (
            lambda x, image: F.linear(
                x.permute(0, 2, 3, 1), torch.linspace(-1, 1, 24).view(3, 8), torch.ones(3)
            ).permute(0, 3, 1, 2),
            {"Add": 1, "Conv": 2},
        ),
    ],
    ids=[
        "clamp",
        "relu6",
        "leaky",
        "prelu",
        "equal slopes",
        "one slope",
        "silu",
        "constant minus",
        "pool",
        "mean",
        "largest of pixels",
        "largest of channels",
        "shuffle",
        "constants",
        "resize",
        "bicubic",
        "quotient",
        "one bound",
        "slices",
        "slices that overlap",
        "order",
        "norm and linear on channels last",
        "linear on channels last",
    ],
)
def test_the_vocabulary_is_read_exactly(
    function: Callable[[Tensor, Tensor], Tensor], operators: dict[str, int], picture: Picture
) -> None:
    module, image = Applied(function).eval(), torch.from_numpy(picture(5, 7))
    graph = capture(module)
    assert graph.operators() == operators
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, image), module(image), atol=1e-6, rtol=0)


def test_all_operators_outside_the_vocabulary_are_listed_with_their_modules() -> None:
    head = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Softmax(dim=1))
    strided = nn.Conv2d(3, 3, 3, stride=2, padding=1)  # Refused as well, but reported last.
    network = nn.Sequential(nn.ELU(), nn.Sequential(nn.ReLU(), head), strided, nn.ELU())
    with pytest.raises(
        UnsupportedOperators,
        match=r"outside the vocabulary: Elu in 0, 3; Softmax in 1\.1\.1\. .* with Abs, .*, Tanh$",
    ) as caught:
        capture(network)
    assert caught.value.operators == (("0", "Elu"), ("1.1.1", "Softmax"), ("3", "Elu"))


def test_an_operator_of_many_modules_names_the_first_of_them() -> None:
    network = nn.Sequential(*(nn.ELU() for _ in range(5)))
    with pytest.raises(UnsupportedOperators, match=r"Elu in 0, 1, 2, 2 more\. ") as caught:
        capture(network)
    assert len(caught.value.operators) == 5


_EXIT = nn.Conv2d(6, 3, 1)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(3, 12, 3, padding=1, stride=2), nn.PixelShuffle(2)),
        (nn.Conv2d(3, 3, 3, padding=2, dilation=2),),
        (nn.ZeroPad2d((0, 2, 1, 1)), nn.Conv2d(3, 3, 3)),
        (nn.ReflectionPad2d(2), nn.Conv2d(3, 3, 5)),
        (nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 3, 3)),
        (nn.ReplicationPad2d((1, 2, 3, 0)), nn.Conv2d(3, 3, 4)),
        (nn.Conv2d(3, 3, (1, 3), padding=(0, 1)),),
        (nn.ConvTranspose2d(3, 3, 3, stride=2, padding=1, output_padding=1, bias=False),),
        (
            nn.Conv2d(3, 4, 2, stride=2),
            nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2),
            nn.Conv2d(6, 3, 1),
        ),
        (nn.MaxPool2d(2), nn.ConvTranspose2d(3, 3, 2, stride=2)),
        (nn.AvgPool2d(2), nn.Conv2d(3, 12, 1), nn.PixelShuffle(2)),
        (nn.AvgPool2d(3, stride=1, padding=1),),
        (nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)),
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_windows_are_captured_as_torch_computes_them(layers: tuple[nn.Module, ...]) -> None:
    network = nn.Sequential(*layers, nn.ReLU())
    graph = capture(network)
    for sides in ((7, 12), (10, 5)):
        image = torch.rand(1, 3, *(graph.sides.fitting(side) for side in sides))
        with torch.no_grad():
            torch.testing.assert_close(execute(graph, image), network(image))


class _SelfPadding(nn.Module):
    """Pads to a multiple of four and cuts the result, as NAFNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 2, stride=2), nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.gate = nn.Conv2d(3, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[2:]
        padded = nn.functional.pad(image, (0, -width % 4, 0, -height % 4))
        # What is added is seen: by the average over all.
        weighed = self.down(padded) * self.gate(padded.mean((2, 3), keepdim=True))
        return self.up(weighed)[..., :height, :width]


def test_a_network_that_pads_itself_takes_the_multiples_to_which_it_pads() -> None:
    network = _SelfPadding().eval()
    graph = capture(network)
    assert (graph.step, graph.sides) == (4, Sides(4, 4))
    image = torch.rand(1, 3, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, image), network(image))


class _NoiseLevel(nn.Module):
    """Gives itself a plane of noise beside the picture, as DRUNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        level = torch.zeros(1, 1, *image.shape[2:]) + 15 / 255
        return self.convolution(torch.cat([image, level], 1))


def test_a_plane_of_one_value_is_made_by_a_convolution() -> None:
    network = _NoiseLevel().eval()
    graph = capture(network)
    assert graph.operators() == {"Concat": 1, "Conv": 2} and graph.sides == ANY_SIDES
    image = torch.rand(1, 3, 5, 9)
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, image), network(image))


class _Sized(nn.Module):
    """Is another network for every size."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * image.shape[2]


def test_a_network_that_differs_with_the_size_is_refused() -> None:
    with pytest.raises(CannotLower):
        capture(_Sized())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(3, 3, 3, padding=1, stride=(1, 2)), r"0: Conv has strides \(1, 2\)"),
        (nn.Conv2d(3, 3, 3, padding=1, stride=2), r"into one of n/2 × n/2; expected the same"),
        (nn.Conv2d(3, 3, 3), r"into one of n-2 × n-2"),
        (nn.ConstantPad2d(1, 0.5), r"into one of n\+2 × n\+2"),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), r"0: an average without the padding"),
    ],
    ids=["strides", "halved", "cut", "constant", "average"],
)
def test_windows_that_no_writer_could_write_are_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(CannotLower, match=message):
        capture(nn.Sequential(layer, nn.ReLU()))


def test_a_convolution_without_a_bias_gets_one_of_zeros() -> None:
    convolution, image = nn.Conv2d(3, 3, 3, padding=1, bias=False), torch.rand(1, 3, 9, 8)
    graph = capture(nn.Sequential(convolution, nn.ReLU()))
    assert not graph.constants[graph.nodes[0].inputs[2]].any()
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, image), convolution(image).relu())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, image: torch.cat([x, x], dim=2), "only channels can be concatenated"),
        (lambda x, image: x.mean((1, 2), keepdim=True), "must be over height and width"),
        (
            lambda x, image: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
            "enlarged by whole factors, .*; found linear, align_corners, .* by 2",
        ),
        (lambda x, image: x if x.sum() > 0 else -x, "Applied: torch cannot trace it"),
        (lambda x, image: F.conv2d(x, x.mean((2, 3), keepdim=True)), "needs constant weights"),
    ],
    ids=["concat", "mean", "corners", "condition", "weights"],
)
def test_a_form_of_an_operator_that_is_not_supported_is_refused(
    function: Callable[[Tensor, Tensor], Tensor], message: str
) -> None:
    with pytest.raises(CannotLower, match=message):
        capture(Applied(function).eval())


def test_names_lose_their_slashes_and_stay_apart() -> None:
    names = ["/up/Conv_output_0", "up.Conv_output_0", "/", "up/Conv_output_0"]
    nodes = [
        helper.make_node("Sigmoid", ["image"], names[:1]),
        helper.make_node("Mul", [names[0], "/up/factor"], names[1:2]),
        helper.make_node("Sub", [names[1], names[0]], names[2:3]),
        helper.make_node("Relu", [names[2]], names[3:]),
        helper.make_node("Add", [names[3], names[1]], ["restored_image"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 4, 4))
        for name in ("image", "restored_image")
    ]
    factor = numpy_helper.from_array(np.full((1, 3, 1, 1), 1.5, np.float32), "/up/factor")
    model = helper.make_model(helper.make_graph(nodes, "net", ends[:1], ends[1:], [factor]))
    image = torch.rand(1, 3, 4, 4)

    graph = read_model(ir.from_proto(model))

    assert all(name and "/" not in name for name in graph.names)
    once = image.sigmoid()
    expected = (1.5 * once - once).relu() + 1.5 * once
    torch.testing.assert_close(execute(graph, image), expected)


def test_a_captured_graph_is_checked() -> None:
    # torch adds a picture to the batch; a graph has one.
    two = torch.rand(2, 1, 1, 1)
    with pytest.raises(InvalidGraph, match=r"the Mul that .* a constant of shape \(2, 1, 1, 1\)"):
        capture(Applied(lambda x, image: x * two).eval())


def test_a_prelu_that_modules_share_has_its_slopes_once() -> None:
    shared = nn.PReLU(8)
    nn.init.uniform_(shared.weight)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), shared, nn.Conv2d(8, 8, 1), shared)
    graph = capture(network)
    first, second = (node.inputs[1] for node in graph.nodes if node.op == "PRelu")
    assert first == second
    np.testing.assert_array_equal(graph.constants[first], shared.weight.detach().numpy())


def test_a_slope_for_every_pixel_is_refused() -> None:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 4, 5))
        for name in ("image", "restored_image")
    ]
    slope = numpy_helper.from_array(np.ones((3, 4, 5), np.float32), "slope")
    node = helper.make_node("PRelu", ["image", "slope"], ["restored_image"], name="relu")
    model = helper.make_model(helper.make_graph([node], "net", ends[:1], ends[1:], [slope]))
    with pytest.raises(CannotLower, match=r"relu: .* one per channel; .* shape \(3, 4, 5\)"):
        read_model(ir.from_proto(model))
