"""The simulator against arithmetic on whole numbers, written here independently in numpy."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

import runtime
from export.bundle import bundle_of
from export.errors import CannotLower
from export.execution import execute
from export.formulas import FORMULAS
from export.graph import Graph, Node
from export.integers import (
    constant_quantization,
    quantized_bias,
    quantized_weight,
    rounded_constant,
    weight_scales,
)
from export.lowering import int8_form, lower
from export.parity import Restore, parity_pictures
from export.profiles import PROFILES, QUANTIZED_FORM
from export.rewrites.requantization import with_requantization
from export.scales import PIXELS, Quantization, ScaleTable, read_scale_table
from export.sources.source import Source
from export.variants import Variant
from export.writers.tflite_writer import write_tflite
from quantize import load_scales
from quantize.arithmetic import (
    ARITHMETIC,
    onnx_runtime_sum,
    xnnpack_difference,
    xnnpack_requantization,
    xnnpack_sum,
)
from quantize.ptq import as_image
from quantize.scale_classes import Concatenations
from quantize.simulator import Simulator, int8_reference, rounded, run_int8
from runtime.errors import UserError
from runtime.formats import Format
from runtime.manifest import Calibration
from training.catalogue import find_model

Integers = NDArray[np.int64]
_NOTHING = Calibration((), "")


def _some_scale(random: np.random.Generator) -> Quantization:
    return Quantization.of_range(-random.uniform(0, 2), random.uniform(0.1, 4))


@st.composite
def quantized_graphs(draw: st.DrawFn) -> tuple[Graph, ScaleTable]:
    """Convolutions, with ReLU, PReLU or neither, Add, Requantize, Concat and a shuffle."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    constants: dict[str, NDArray[np.float32]] = {}
    scales = {"image": PIXELS, "restored_image": PIXELS}
    nodes: list[Node] = []

    activations = st.sampled_from(["none", "Relu", "PRelu"])

    def convolve(source: str, channels: tuple[int, int], output: str, activation: str) -> None:
        size, groups = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2]))
        groups = groups if channels[0] % groups == 0 else 1
        shape = (channels[1], channels[0] // groups, size, size)
        constants[f"{output}.w"] = random.normal(0, 0.4, shape).astype(np.float32)
        constants[f"{output}.b"] = random.normal(0, 0.3, channels[1]).astype(np.float32)
        made = output if activation == "none" else f"{output}_sum"
        inputs = (source, f"{output}.w", f"{output}.b")
        nodes.append(Node("Conv", output, inputs, (made,), {"groups": groups}))
        if activation == "Relu":
            nodes.append(Node("Relu", output, (made,), (output,)))
        elif activation == "PRelu":
            scales[made] = _some_scale(random)
            constants[f"{output}.s"] = random.uniform(-1, 2, channels[1]).astype(np.float32)
            nodes.append(Node("PRelu", output, (made, f"{output}.s"), (output,)))
        scales.setdefault(output, _some_scale(random))

    convolve("image", (3, 4), "a", draw(activations))
    convolve("a", (4, 4), "b", draw(activations))
    nodes.append(Node("Add", "add", ("a", "b"), ("c",)))
    scales["c"] = scales["cat"] = _some_scale(random)
    # 'a' changes its scale on its way into the concatenation; 'c' has that scale already.
    nodes.append(Node("Requantize", "cat", ("a",), ("changed",)))
    nodes.append(Node("Concat", "cat", ("changed", "c"), ("cat",)))
    convolve("cat", (8, 12), "d", draw(activations))
    shuffle = {"block": 2, "mode": "CRD"}
    nodes.append(Node("DepthToSpace", "shuffle", ("d",), ("e",), shuffle))
    scales["e"] = scales["d"]
    convolve("e", (3, 3), "restored_image", "none")
    graph = Graph(tuple(nodes), constants, origins={"changed": "cat"})
    return graph, ScaleTable("t", 2, "", "", scales, (), _NOTHING)


def _convolved(integers: Integers, kernel: Integers, bias: Integers, groups: int) -> Integers:
    half = kernel.shape[-1] // 2
    padded = np.pad(integers, ((0, 0), (half, half), (half, half)))
    windows = sliding_window_view(padded, kernel.shape[-2:], (1, 2))
    parts = zip(np.split(windows, groups), np.split(kernel, groups), strict=True)
    sums = [np.einsum("ihwkl,oikl->ohw", window, part) for window, part in parts]
    return np.concatenate(sums) + bias[:, None, None]


def _nearest(quanta: NDArray[np.floating], quantization: Quantization) -> Integers:
    return np.clip(np.rint(quanta) + quantization.zero_point, -128, 127).astype(np.int64)


def _run_on_integers(graph: Graph, table: ScaleTable, image: Integers) -> Integers:
    """Run a graph on int64: sums of products of integers, multiplied in float32, rounded once."""
    held: dict[str, Integers] = {"image": image}
    sums: dict[str, NDArray[np.floating]] = {}

    def quanta(value: str, target: Quantization) -> NDArray[np.float64]:
        source = table.of(graph.origin(value))
        return (held[value] - source.zero_point) * source.scale / target.scale

    for node in graph.nodes:
        relu = graph.fused_relu(node)
        target = table.of(graph.origin(node.output if relu is None else relu.output))
        match node.op:
            case "Conv":
                value, weight, bias = node.inputs
                kernel, source = graph.constants[weight], table.of(value)
                sums_of_products = _convolved(
                    held[value] - source.zero_point,
                    quantized_weight(kernel).astype(np.int64),
                    quantized_bias(graph.constants[bias], kernel, source).astype(np.int64),
                    node.integer("groups"),
                )
                multipliers = weight_scales(kernel) * np.float32(source.scale)
                multipliers /= np.float32(target.scale)
                result = sums_of_products.astype(np.float32) * multipliers[:, None, None]
            case "Relu":
                result = np.maximum(sums.pop(node.inputs[0]), 0)
            case "PRelu":
                slopes = graph.constants[node.inputs[1]]
                unit = np.abs(slopes).max() / np.float32(127)
                integers = np.rint(slopes / unit)[:, None, None]
                result = quanta(node.inputs[0], target)
                result = np.where(result < 0, result * (integers * unit), result)
                assume(_has_no_ties(result))
            case "Add":
                result = quanta(node.inputs[0], target) + quanta(node.inputs[1], target)
                # Runtimes decide the ties of sums each in their own way (quantize.arithmetic).
                assume(_has_no_ties(result))
            case "Requantize":
                result = quanta(node.inputs[0], target).astype(np.float32)
            case "Concat":
                held[node.output] = np.concatenate([held[value] for value in node.inputs])
                continue
            case "DepthToSpace":
                held[node.output] = _shuffled(held[node.inputs[0]])
                continue
        if relu is None:
            held[node.output] = _nearest(result, target)
        else:
            sums[node.output] = result
    return held["restored_image"]


def _has_no_ties(quanta: NDArray[np.floating]) -> bool:
    return bool(np.all(np.abs(quanta - np.floor(quanta) - 0.5) > 1e-4))


def _shuffled(integers: Integers) -> Integers:
    channels, height, width = integers.shape
    blocks = integers.reshape(channels // 4, 2, 2, height, width)
    return blocks.transpose(0, 3, 1, 4, 2).reshape(channels // 4, 2 * height, 2 * width)


@settings(deadline=None, max_examples=40)
@given(
    quantized=quantized_graphs(),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_simulation_is_integer_arithmetic(
    quantized: tuple[Graph, ScaleTable], height: int, width: int, seed: int
) -> None:
    graph, table = quantized
    levels = np.random.default_rng(seed).integers(0, 256, (3, height, width))

    expected = _run_on_integers(graph, table, levels - 128) + 128

    image = torch.from_numpy(levels)[None] / torch.tensor(255, dtype=torch.float64)
    restored = run_int8(graph, table, image)[0].numpy() / PIXELS.scale
    np.testing.assert_allclose(restored, expected, atol=1e-6)


@settings(deadline=None)
@given(
    value=st.floats(-5, 5),
    low=st.floats(-4, 0),
    high=st.floats(0.01, 4),
)
def test_rounding_clamps_and_goes_to_the_nearest(value: float, low: float, high: float) -> None:
    quantization = Quantization.of_range(low, high)
    scale, zero_point = quantization.scale, quantization.zero_point
    # Quanta are rounded in float32, which may take either side of a tie.
    assume(abs(value / scale - np.floor(value / scale) - 0.5) > 2e-5)

    (found,) = rounded(torch.tensor([value], dtype=torch.float64), quantization).tolist()

    choices = (np.arange(-128, 128) - zero_point) * scale
    assert np.abs(choices - found).min() < 1e-12
    assert abs(found - value) <= np.abs(choices - value).min() + 1e-12


def test_ties_go_to_the_even_integer_whatever_the_zero_point() -> None:
    values = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    for zero_point in (-3, 0, 5):
        found = rounded(values, Quantization(1.0, zero_point))
        assert found.tolist() == [-2, 0, 0, 2, 2]


def test_what_is_a_tie_in_float32_goes_to_the_even_integer_in_float64_too() -> None:
    scale = 0.125
    value = torch.tensor([2.5 * scale * (1 + 1e-10)], dtype=torch.float64)
    assert rounded(value, Quantization(scale, 0)).item() == 2 * scale


@pytest.fixture(scope="module")
def table(quantized: Callable[[Concatenations], ScaleTable]) -> ScaleTable:
    return quantized("requantized")


@pytest.fixture(scope="module")
def image(crops: list[NDArray[np.uint8]]) -> torch.Tensor:
    return as_image(crops[0])


def _level_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) * 255


@pytest.mark.parametrize("profile", PROFILES)
def test_every_lowered_form_computes_the_same(
    profile: str, graph: Graph, table: ScaleTable, image: torch.Tensor
) -> None:
    plain = with_requantization(int8_form(graph, table), table)
    further = PROFILES[profile].further_int8
    lowered = with_requantization(lower(int8_form(graph, table), further), table)
    reference = run_int8(plain, table, image.double())

    found = run_int8(lowered, table, image.double())

    assert _level_difference(found, reference) < 1e-6


def test_float32_loses_next_to_nothing(
    graph: Graph, table: ScaleTable, image: torch.Tensor
) -> None:
    lowered = with_requantization(int8_form(graph, table), table)
    exact, quick = (run_int8(lowered, table, one) for one in (image.double(), image))

    levels = ((exact - quick).abs() * 255).round()
    assert levels.max() <= 1
    assert (levels > 0).float().mean() < 0.01


def test_a_requantized_network_stays_near_the_real_one(
    graph: Graph, table: ScaleTable, image: torch.Tensor
) -> None:
    lowered = with_requantization(int8_form(graph, table), table)
    assert lowered.operators()["Requantize"] >= 2

    restored = run_int8(lowered, table, image)

    reference = execute(lowered, image).clamp(0, 1)
    assert 10 * torch.log10(1 / (restored - reference).square().mean()) > 34
    levels = restored / PIXELS.scale
    assert float((levels - levels.round()).abs().max()) < 1e-3
    assert 0 <= restored.min() <= restored.max() <= 1.0001


def test_a_table_read_from_json_simulates_identically(
    graph: Graph, table: ScaleTable, image: torch.Tensor, tmp_path: Path
) -> None:
    table.write(tmp_path / "table.json")
    read = read_scale_table(tmp_path / "table.json")

    def run(scales: ScaleTable) -> torch.Tensor:
        return run_int8(with_requantization(int8_form(graph, scales), scales), scales, image)

    assert read == table
    assert torch.equal(run(read), run(table))


def test_pictures_are_restored_as_tensors_are(
    graph: Graph, table: ScaleTable, crops: list[NDArray[np.uint8]]
) -> None:
    lowered = with_requantization(int8_form(graph, table), table)

    restored = int8_reference(lowered, table, "coreml")(crops[1].astype(np.float32) / 255)

    expected = run_int8(lowered, table, as_image(crops[1]).double())[0].permute(1, 2, 0)
    np.testing.assert_array_equal(restored, expected.float().numpy())


def test_a_simulator_restores_a_batch_as_single_pictures(
    graph: Graph, table: ScaleTable, crops: list[NDArray[np.uint8]]
) -> None:
    lowered = with_requantization(int8_form(graph, table), table)
    images = torch.cat([as_image(crop) for crop in crops[:2]]).double()
    simulator = Simulator(lowered, table, torch.float64)

    with torch.no_grad():
        together, alone = simulator(images), simulator(images[1:])

    assert _level_difference(together[1:], alone) < 1e-6


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize(("model", "scale"), [("carn-m", 3), ("carn-m", 4), ("mepsnet-s", 1)])
def test_files_of_trained_networks_agree_in_every_output(
    model: str, scale: int, kind: Format, tmp_path: Path
) -> None:
    references: list[Restore] = []

    def recorded(*of: Any) -> Restore:
        references.append(int8_reference(*of))
        return references[-1]

    source, table = Source.of(find_model(model), scale), load_scales(model, scale)
    variant = Variant(kind, "int8")
    bundle_of(source, [variant], tmp_path, table, recorded)

    with runtime.open(tmp_path / variant.file_name(model, scale)) as session:
        for picture in parity_pictures():
            restored, expected = session.run(picture), references[-1](picture)
            levels = np.rint(255 * restored) - np.rint(255 * np.clip(expected, 0, 1))
            np.testing.assert_array_equal(levels, 0)


@pytest.fixture(scope="module")
def quantized_addition() -> InferenceSession:
    scale, zero = ("FLOAT", []), ("UINT8", [])
    operands = {"a": ("UINT8", [65536]), "a_scale": scale, "a_zero": zero}
    operands |= {"b": ("UINT8", [65536]), "b_scale": scale, "b_zero": zero}
    operands |= {"c_scale": scale, "c_zero": zero}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape)
        for name, (kind, shape) in operands.items()
    ]
    output = helper.make_tensor_value_info("c", TensorProto.UINT8, [65536])
    node = helper.make_node("QLinearAdd", list(operands), ["c"], domain="com.microsoft")
    model = helper.make_model(
        helper.make_graph([node], "add", inputs, [output]),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"},
    reason="ONNX Runtime adds by other kernels elsewhere; onnx_runtime_sum is that of x86",
)
@settings(deadline=None, max_examples=30)
@given(
    quanta=st.lists(st.integers(1, 4000), min_size=3, max_size=3),
    zeros=st.lists(st.integers(-128, 127), min_size=3, max_size=3),
)
def test_sums_are_those_of_onnx_runtime_in_every_pair(
    quantized_addition: InferenceSession, quanta: list[int], zeros: list[int]
) -> None:
    *sources, target = (
        Quantization(float(np.float32(one / 4096)), zero)
        for one, zero in zip(quanta, zeros, strict=True)
    )
    pairs = np.indices((256, 256), np.uint8).reshape(2, -1)
    feeds = dict(zip("ab", pairs, strict=True))
    for name, one in zip("abc", (*sources, target), strict=True):
        feeds[f"{name}_scale"] = np.array(one.scale, np.float32)
        feeds[f"{name}_zero"] = np.array(one.zero_point + 128, np.uint8)
    (expected,) = quantized_addition.run(None, feeds)

    addends = [
        (torch.from_numpy(held).double() - one.zero_point - 128) * one.scale
        for held, one in zip(pairs, sources, strict=True)
    ]
    found = onnx_runtime_sum(addends, sources, target) / target.scale + target.zero_point + 128

    np.testing.assert_array_equal(found.round().clamp(0, 255).numpy(), expected)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_sums_of_runtimes_are_sums_but_for_ties(seed: int) -> None:
    random = np.random.default_rng(seed)
    sources, target = [_some_scale(random) for _ in range(2)], _some_scale(random)
    integers = [torch.from_numpy(random.integers(-128, 128, 500)) for _ in sources]
    addends = [
        (held - one.zero_point).double() * one.scale
        for held, one in zip(integers, sources, strict=True)
    ]
    exact = (addends[0] + addends[1]) / target.scale
    decided = (exact - exact.floor() - 0.5).abs() > 1e-3
    for add in (onnx_runtime_sum, xnnpack_sum):
        found = add(addends, sources, target) / target.scale
        assert torch.equal(found.round()[decided], exact.round()[decided])
        assert (found - exact).abs().max() < 0.501


def test_the_sums_of_runtimes_decide_ties_each_in_its_own_way() -> None:
    one, two = Quantization(1.0, -127), Quantization(2.0, 0)
    addends = [torch.tensor([1.0, 3.0, -1.0, -3.0]).double(), torch.zeros(4).double()]
    # In quanta of two: 0.5, 1.5, -0.5 and -1.5. ONNX Runtime rounds them with the zero point of
    # the unsigned integers, 128, an even one.
    assert (onnx_runtime_sum(addends, [one, one], two) / 2).tolist() == [0, 2, 0, -2]
    assert (xnnpack_sum(addends, [one, one], two) / 2).tolist() == [1, 2, 0, -1]
    odd = Quantization(2.0, 1)
    assert (onnx_runtime_sum(addends, [one, one], odd) / 2).tolist() == [1, 1, -1, -1]


def _every_value(path: Path) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return a picture of all 8-bit values, 1 × 16 × 16 × 3, and what a TFLite file makes of it."""
    litert = Interpreter(model_path=str(path), num_threads=1)
    (source,), (output,) = litert.get_input_details(), litert.get_output_details()
    held = np.resize(np.arange(-128, 128, dtype=np.int8), (1, 16, 16, 3))
    litert.resize_tensor_input(source["index"], held.shape)
    litert.allocate_tensors()
    litert.set_tensor(source["index"], held)
    litert.invoke()
    return held, litert.get_tensor(output["index"]).astype(np.int64)


@settings(deadline=None, max_examples=30)
@given(ratio=st.floats(2.0**-9, 100), zero_point=st.integers(-128, 127))
def test_scales_change_as_in_tflite_files_in_every_value(
    tmp_path_factory: pytest.TempPathFactory, ratio: float, zero_point: int
) -> None:
    target = Quantization(float(np.float32(PIXELS.scale / ratio)), zero_point)
    node = Node("Requantize", "change", ("image",), ("restored_image",))
    scales = {"image": PIXELS, "restored_image": target}
    path = tmp_path_factory.mktemp("change") / "file.tflite"
    write_tflite(Graph((node,), {}), path, "int8", ScaleTable("t", 1, "", "", scales, (), _NOTHING))
    held, expected = _every_value(path)

    value = (torch.from_numpy(held).double() - PIXELS.zero_point) * PIXELS.scale
    changed = rounded(xnnpack_requantization(value, PIXELS, target), target)
    found = (changed / target.scale).round().numpy() + zero_point

    # LiteRT's own kernel takes what is too small for XNNPACK: ties go up, the simulator's to even.
    exact_kernel = np.float32(PIXELS.scale) / np.float32(target.scale) < 2.0**-8
    np.testing.assert_allclose(found, expected, rtol=0, atol=1 if exact_kernel else 0)


@settings(deadline=None, max_examples=30)
@given(less=st.floats(0.01, 2), ratio=st.floats(2.0**-4, 16), zero_point=st.integers(-128, 127))
@example(less=0.5, ratio=float(PIXELS.scale / np.float32(0.0039215684)), zero_point=0)
def test_numbers_are_subtracted_as_in_tflite_files_from_every_value(
    tmp_path_factory: pytest.TempPathFactory, less: float, ratio: float, zero_point: int
) -> None:
    target = Quantization(float(np.float32(PIXELS.scale / ratio)), zero_point)
    constants = {"less": np.full((1, 3, 1, 1), less, np.float32)}
    graph = Graph((Node("Sub", "minus", ("image", "less"), ("restored_image",)),), constants)
    scales = {"image": PIXELS, "restored_image": target}
    path = tmp_path_factory.mktemp("minus") / "file.tflite"
    write_tflite(graph, path, "int8", ScaleTable("t", 1, "", "", scales, (), _NOTHING))
    held, expected = _every_value(path)

    value = (torch.from_numpy(held).double() - PIXELS.zero_point) * PIXELS.scale
    number = torch.full_like(value, float(rounded_constant(np.float32([less]))[0]))
    constant = constant_quantization(np.float32([less]))
    changed = rounded(xnnpack_difference([value, number], [PIXELS, constant], target), target)
    found = (changed / target.scale).round().numpy() + zero_point

    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(
    op=st.sampled_from(["LeakyRelu", "PRelu"]),
    slopes=st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3),
    ratio=st.one_of(st.just(1.0), st.floats(2.0**-7, 100)),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    same_zero=st.booleans(),
)
def test_activations_bend_as_in_tflite_files_in_every_value(
    tmp_path_factory: pytest.TempPathFactory,
    op: str,
    slopes: list[float],
    ratio: float,
    zeros: tuple[int, int],
    same_zero: bool,
) -> None:
    zeros = (zeros[0], zeros[0]) if same_zero else zeros
    source = Quantization(float(np.float32(0.02)), zeros[0])
    target = Quantization(float(np.float32(0.02 / ratio)), zeros[1])
    constants = {"w": np.eye(3, dtype=np.float32)[..., None, None], "b": np.zeros(3, np.float32)}
    wide = Node("Conv", "wide", ("image", "w", "b"), ("wide",), {"groups": 1})
    if op == "PRelu":
        assume(max(map(abs, slopes)) > 0.01)
        bend = Node(op, "bend", ("wide", "slopes"), ("restored_image",))
        constants["slopes"] = np.float32(slopes)
    else:
        slopes = [abs(slopes[0])]  # What XNNPACK takes.
        bend = Node(op, "bend", ("wide",), ("restored_image",), {"slope": slopes[0]})
    graph = Graph((wide, bend), constants)
    scales = {"image": PIXELS, "wide": source, "restored_image": target}
    table = ScaleTable("t", 1, "", "", scales, (), _NOTHING)
    path = tmp_path_factory.mktemp("bend") / "file.tflite"
    write_tflite(graph, path, "int8", table)
    held, made = _every_value(path)
    expected = made[0]

    image = (torch.from_numpy(held).double() - PIXELS.zero_point) * PIXELS.scale
    simulator = Simulator(graph, table, torch.float64, ARITHMETIC["tflite"])
    found = simulator(image.permute(0, 3, 1, 2))[0].permute(1, 2, 0) / target.scale

    np.testing.assert_array_equal(found.round().numpy() + zeros[1], expected)


@pytest.mark.parametrize("op", FORMULAS)
@settings(deadline=None, max_examples=4)
@given(
    scale=st.floats(0.01, 0.08),
    ratio=st.floats(0.3, 4),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
)
def test_functions_have_the_results_of_tflite_files_in_every_value(
    tmp_path_factory: pytest.TempPathFactory,
    op: str,
    scale: float,
    ratio: float,
    zeros: tuple[int, int],
) -> None:
    zeros = (-128, zeros[1]) if op == "Sqrt" else zeros  # of no negative number
    source = Quantization(float(np.float32(scale)), zeros[0])
    target = Quantization(float(np.float32(scale * ratio)), zeros[1])
    # All integers of the picture become those of 'wide', whose scale is another.
    kernel = np.eye(3, dtype=np.float32)[..., None, None] * np.float32(255 * scale)
    shift = np.full(3, (-128 - zeros[0]) * scale, np.float32)
    nodes = (
        Node("Conv", "wide", ("image", "w", "b"), ("wide",), {"groups": 1}),
        Node(op, "function", ("wide",), ("restored_image",)),
    )
    graph = Graph(nodes, {"w": kernel, "b": shift})
    scales = {"image": PIXELS, "wide": source, "restored_image": target}
    table = ScaleTable("t", 1, "", "", scales, (), _NOTHING)
    path = tmp_path_factory.mktemp("function") / "file.tflite"
    write_tflite(graph, path, "int8", table)
    held, made = _every_value(path)

    image = (torch.from_numpy(held).double() - PIXELS.zero_point) * PIXELS.scale
    simulator = Simulator(graph, table, torch.float64, ARITHMETIC["tflite"])
    found = simulator(image.permute(0, 3, 1, 2))[0].permute(1, 2, 0) / target.scale

    integers = found.round().numpy() + zeros[1]
    np.testing.assert_array_equal(integers, made[0])
    # An independent reference: the formula in float64, which rounds the same but for near ties.
    real = _by_formula(op, (held[0].astype(np.float64) - zeros[0]) * source.scale)
    expected = np.clip(real / target.scale + zeros[1], -128, 127)
    assert np.abs(integers - expected).max() <= 0.501


def _by_formula(op: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    numpy_names: Mapping[str, Callable[..., NDArray[np.float64]]] = {
        "Add": np.add,
        "Mul": np.multiply,
        "Max": np.maximum,
        "Min": np.minimum,
        "Abs": np.abs,
        "Exp": np.exp,
        "Log": np.log,
        "Sqrt": np.sqrt,
        "Tanh": np.tanh,
        "Erf": np.vectorize(math.erf),
        "Sigmoid": lambda value: 1 / (1 + np.exp(-value)),
    }

    def apply(operator: str, operands: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return numpy_names[operator](*operands)

    formula = FORMULAS[op]
    return apply(formula.operator, formula.operands({"x": x}, apply, np.float64))


def test_what_8_bits_hold_must_have_a_result() -> None:
    graph = Graph((Node("Sqrt", "net.root", ("image",), ("restored_image",)),), {})
    scales = {"image": Quantization(0.01, 0), "restored_image": PIXELS}
    with pytest.raises(CannotLower, match=r"net.root: Sqrt has no finite results .*float16"):
        Simulator(graph, ScaleTable("t", 1, "", "", scales, (), _NOTHING))


def test_a_table_of_another_network_is_refused(
    graph: Graph, table: ScaleTable, image: torch.Tensor
) -> None:
    without: Mapping[str, Quantization] = {
        name: scale for name, scale in table.activations.items() if name != "conv2d"
    }
    partial = ScaleTable("small", 2, "", "", without, (), _NOTHING)

    with pytest.raises(UserError, match="do not cover 'conv2d'"):
        run_int8(lower(graph, QUANTIZED_FORM), partial, image)
