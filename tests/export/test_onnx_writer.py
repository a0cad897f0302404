"""ONNX files against torch and the int8 simulation, by ONNX Runtime, onnx's checker and onnxsim."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import onnxsim
import pytest
from numpy.typing import NDArray

from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import DEFAULT_PROFILES, PROFILES
from export.rewrites.requantization import with_requantization
from export.scales import Quantization, ScaleTable
from export.writers.onnx_writer import write_onnx
from runtime.errors import UserError
from runtime.formats import Precision
from runtime.manifest import TensorInfo

Image = NDArray[np.float32]
Picture = Callable[[int, int], Image]
Capture = Callable[[str, int], Any]
Calibrate = Callable[..., ScaleTable]
Simulate = Callable[[Graph, ScaleTable, Image], Image]
SIZES = [(37, 51), (8, 8), (1, 1), (1, 7)]
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
QUANTA = 2
# Weights, and the sizes of the groups that are split.
_KINDS_OF_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64)


def _lowered(graph: Graph, precision: Precision) -> Graph:
    return lower(graph, PROFILES[DEFAULT_PROFILES["onnx"]].rewrites(precision))


def _session(path: Path, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    # Exact sums on CPUs without VNNI, too; as runtime.engines.onnxruntime_engine asks for.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(path: Path, image: Image) -> Image:
    restored: Image = _session(path).run(["restored_image"], {"image": image})[0]
    return restored


def _check_complete(path: Path) -> onnx.ModelProto:
    """Check the file strictly, and that it says the type of every tensor; return it."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert {known.name: known for known in inferred.graph.value_info} == {
        known.name: known for known in model.graph.value_info
    }
    made = {output for node in model.graph.node for output in node.output}
    said = {known.name for known in [*model.graph.value_info, *model.graph.output]}
    assert made == said
    return model


def _histogram(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_file_of_every_operator_is_complete(
    operator_case: Any,
    precision: Precision,
    tmp_path: Path,
    picture: Picture,
    calibrated: Calibrate,
) -> None:
    if operator_case.refusal("onnx", precision) is None:
        graph, path = operator_case.graph, tmp_path / "operator.onnx"
        write_onnx(graph, path, precision, calibrated(graph, picture(5, 7), output=None))
        _check_complete(path)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("model", ["carn", "carn-m"])
@pytest.mark.parametrize(
    "scale", [4, pytest.param(3, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_network_computes_what_torch_does_at_any_size(
    scale: int,
    model: str,
    precision: Precision,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
) -> None:
    network, path = captured(model, scale), tmp_path / "network.onnx"
    write_onnx(_lowered(network.graph, precision), path, precision)
    for size in SIZES:
        image = picture(*size)
        expected = network.restore(image)
        np.testing.assert_allclose(_run(path, image), expected, atol=TOLERANCE[precision], rtol=0)


@pytest.mark.parametrize("model", ["carn", "carn-m"])
@pytest.mark.parametrize("requantize", [False, True], ids=["tied", "requantized"])
def test_an_int8_network_agrees_with_the_simulation(
    model: str,
    requantize: bool,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
    calibrated: Calibrate,
    simulated: Simulate,
) -> None:
    graph, path = _lowered(captured(model, 4).graph, "int8"), tmp_path / "network.onnx"
    concats = [node for node in graph.nodes if node.op == "Concat"]
    pairs = tuple((node.inputs[0], node.output) for node in concats) if requantize else ()
    table = calibrated(graph, picture(24, 24), requantized=pairs)
    graph = with_requantization(graph, table)
    assert ("Requantize" in graph.operators()) == requantize
    write_onnx(graph, path, "int8", table)
    for size in SIZES:
        expected = simulated(graph, table, picture(*size))
        difference = np.abs(_run(path, picture(*size)) - expected)
        assert difference.max() <= (QUANTA + 0.01) / 255


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    captured: Capture,
    picture: Picture,
    calibrated: Calibrate,
) -> dict[str, Path]:
    """CARN-M ×4 in every precision, of any size."""
    folder, paths = tmp_path_factory.mktemp("onnx"), {}
    for precision in ("float32", "float16", "int8"):
        graph = _lowered(captured("carn-m", 4).graph, precision)
        paths[precision] = folder / f"{precision}.onnx"
        write_onnx(graph, paths[precision], precision, calibrated(graph, picture(8, 8)))
    return paths


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_file_is_complete_and_onnxsim_finds_nothing_to_simplify(
    precision: str, files: dict[str, Path]
) -> None:
    model = _check_complete(files[precision])
    simplified, agrees = onnxsim.simplify(model)
    assert agrees
    # Convolutions share no integers, on purpose: equal constants are all there is to merge, and the
    # first convolution, whose positive half differs by its rounding alone.
    merged = {"DequantizeLinear"} if precision == "int8" else set()
    left, found = (
        {op: count for op, count in _histogram(one).items() if op not in merged}
        for one in (simplified, model)
    )
    if precision == "int8":
        left["Conv"] += 1
    assert left == found
    assert model.producer_name == "reslite" and "4 times" in model.doc_string
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_input_and_output_are_float32_with_named_axes(
    precision: str, files: dict[str, Path]
) -> None:
    session = _session(files[precision])
    (image,), (restored,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("image", "tensor(float)")
    assert (restored.name, restored.type) == ("restored_image", "tensor(float)")
    assert image.shape == [1, 3, "height", "width"]
    assert restored.shape == [1, 3, "4*height", "4*width"]


def test_shared_weights_are_stored_once(files: dict[str, Path]) -> None:
    # 294,147 parameters (ECCV 2018 supplement, CARN-M ×4) and the three means; the last convolution
    # makes four pixels from four times the channels.
    constants = onnx.load(files["float32"]).graph.initializer
    weights, biases = 3 * 64 * 9, 3
    expected = 294_147 + 3 + 15 * weights + 3 * biases
    assert sum(int(np.prod(tensor.dims)) for tensor in constants) == expected
    halves = onnx.load(files["float16"]).graph.initializer
    kinds = {kind: [one for one in halves if one.data_type == kind] for kind in _KINDS_OF_HALVES}
    assert sum(map(len, kinds.values())) == len(halves)
    weights_of_halves = kinds[onnx.TensorProto.FLOAT16]
    assert sum(int(np.prod(tensor.dims)) for tensor in weights_of_halves) == expected


@pytest.mark.parametrize("tied", [True, False], ids=["one scale", "own scales"])
def test_onnx_runtime_executes_int8_convolutions_as_integers(
    tied: bool, tmp_path: Path, captured: Capture, picture: Picture, calibrated: Calibrate
) -> None:
    graph = _lowered(captured("carn", 4).graph, "int8")
    pairs = tuple(
        (value, node.output) for node in graph.nodes if node.op == "Concat" for value in node.inputs
    )
    table = calibrated(graph, picture(8, 8), requantized=() if tied else pairs)
    path, optimized = tmp_path / "network.onnx", tmp_path / "optimized.onnx"
    write_onnx(with_requantization(graph, table), path, "int8", table)
    _session(path, optimized)
    found = _histogram(onnx.load(optimized))
    assert found["QLinearConv"] == graph.operators()["Conv"] and found["QLinearAdd"] == 9
    assert found["Conv"] == found["FusedConv"] == found["Relu"] == 0
    assert found["Clip"] == 0  # no sign but one meets in a concatenation


def test_a_mean_far_below_its_operand_opens(
    tmp_path: Path, picture: Picture, calibrated: Calibrate, simulated: Simulate
) -> None:
    """ONNX Runtime's integer mean refuses scales further apart than 256 times the pixels."""
    large = np.full((3, 1, 1), 1000, np.float32)
    nodes = (
        Node("Mul", "large", ("image", "thousand"), ("features",)),
        Node("GlobalAveragePool", "pool", ("features",), ("mean",)),
        Node("Add", "sum", ("features", "mean"), ("restored_image",)),
    )
    graph, image = Graph(nodes, {"thousand": large}).check(), picture(1, 1)
    table = calibrated(graph, image, output=None)
    small = {**table.activations, "mean": Quantization.of_range(-1, 1)}
    table = dataclasses.replace(table, activations=small)
    write_onnx(graph, tmp_path / "mean.onnx", "int8", table)
    restored = _run(tmp_path / "mean.onnx", image)
    np.testing.assert_allclose(restored, simulated(graph, table, image), atol=8, rtol=0)


def test_convolutions_share_no_integers(files: dict[str, Path]) -> None:
    # ONNX Runtime's x64quantprecision fails where two read the same weights or zero points.
    model = onnx.load(files["int8"])
    makers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 46  # CARN-M ×4, its recursive blocks three times each
    for operand in (0, 2):
        read = [makers[node.input[1]].input[operand] for node in convolutions]
        assert len(set(read)) == len(read)


def test_the_rounding_of_a_convolution_is_its_relu(
    tmp_path: Path, captured: Capture, picture: Picture, calibrated: Calibrate
) -> None:
    # Where features of both signs share the scale of a concatenation, a ReLU follows the rounding.
    rewrites = PROFILES["ort-cpu"].rewrites("int8")
    graph = lower(captured("carn-m", 4).graph, [one for one in rewrites if one != "split_signs"])
    write_onnx(graph, tmp_path / "a.onnx", "int8", calibrated(graph, picture(8, 8)))
    model = onnx.load(tmp_path / "a.onnx")
    makers = {output: node for node in model.graph.node for output in node.output}
    found = _histogram(model)
    assert found["Relu"] == 0 < found["LeakyRelu"]
    for node in model.graph.node:
        made_by = {makers[name].op_type for name in node.input if name in makers}
        if node.op_type == "LeakyRelu":
            assert made_by == {"DequantizeLinear"}
        # Backends for NPUs take quantized operators between real numbers, none of integers.
        if made_by & {"Conv", "Add", "LeakyRelu"}:
            assert node.op_type == "QuantizeLinear"
        if "QuantizeLinear" in made_by:
            assert node.op_type == "DequantizeLinear"
    # In ONNX Runtime each of them is one integer kernel, and nothing between the ends is float.
    _session(tmp_path / "a.onnx", tmp_path / "optimized.onnx")
    kernels = _histogram(onnx.load(tmp_path / "optimized.onnx"))
    assert kernels["QLinearLeakyRelu"] == found["LeakyRelu"]
    assert kernels["QuantizeLinear"] == kernels["DequantizeLinear"] == 1


@pytest.mark.parametrize("profile", [one.name for one in PROFILES.values() if one.format == "onnx"])
def test_float16_convolutions_have_no_groups(
    profile: str, tmp_path: Path, captured: Capture, picture: Picture
) -> None:
    # ONNX Runtime before 1.32 computes all groups but the first wrongly on arm64.
    network = captured("carn-m", 4)
    graph = lower(network.graph, PROFILES[profile].rewrites("float16"))
    write_onnx(graph, tmp_path / "a.onnx", "float16")
    groups = {
        attribute.i
        for node in onnx.load(tmp_path / "a.onnx").graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    }
    assert groups == {1}
    expected = network.restore(picture(9, 12))
    found = _run(tmp_path / "a.onnx", picture(9, 12))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE["float16"], rtol=0)


def test_int8_weights_have_one_scale_per_output_channel(files: dict[str, Path]) -> None:
    model = onnx.load(files["int8"])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        activation, weight, bias = (makers[name] for name in conv.input)
        assert {node.op_type for node in (activation, weight, bias)} == {"DequantizeLinear"}
        kernel, scales = (constants[name] for name in weight.input[:2])
        assert kernel.data_type == onnx.TensorProto.INT8
        assert list(scales.dims) == [kernel.dims[0]] and weight.attribute[0].i == 0
        assert constants[bias.input[0]].data_type == onnx.TensorProto.INT32
        assert constants[activation.input[2]].data_type == onnx.TensorProto.UINT8


def test_a_fixed_size_is_the_only_one(tmp_path: Path, captured: Capture, picture: Picture) -> None:
    network, path = captured("carn-m", 4), tmp_path / "network.onnx"
    written = write_onnx(network.graph, path, "float32", size=(6, 9))
    assert written.input == TensorInfo("image", "NCHW", "float32", (1, 3, 6, 9))
    assert written.output == TensorInfo("restored_image", "NCHW", "float32", (1, 3, 24, 36))
    model = _check_complete(path)
    assert written.operators == dict(_histogram(model))
    unknown = [known.name for known in model.graph.value_info if "dim_param" in str(known)]
    assert not unknown
    expected = network.restore(picture(6, 9))
    np.testing.assert_allclose(_run(path, picture(6, 9)), expected, atol=1e-5, rtol=0)
    with pytest.raises(Exception, match="invalid dimensions"):
        _run(path, picture(6, 10))


def test_sizes_are_free_unless_fixed(tmp_path: Path, small_graph: Graph) -> None:
    written = write_onnx(small_graph, tmp_path / "network.onnx", "float32")
    assert written.input.shape == written.output.shape == (1, 3, None, None)


def test_int8_without_scales_is_refused(tmp_path: Path, small_graph: Graph) -> None:
    with pytest.raises(UserError, match=r"network\.onnx: int8 needs a table of scales"):
        write_onnx(small_graph, tmp_path / "network.onnx", "int8")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, small_graph: Graph) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_onnx(small_graph, tmp_path / "file" / "network.onnx", "float32")
