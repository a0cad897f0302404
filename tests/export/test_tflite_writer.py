"""LiteRT's outputs from our files must equal torch's outputs from the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from export.errors import CannotLower
from export.execution import execute
from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import profile_named
from export.rewrites.requantization import with_requantization
from export.rewrites.shuffles import use_transposed_convolutions
from export.scales import Quantization, ScaleTable
from export.writers.tflite_writer import write_tflite
from runtime.errors import UserError
from runtime.formats import Precision

MODELS = ("carn", "carn-m")
SIZES = ((37, 51), (8, 8), (1, 1), (1, 7))
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
BANNED = {"TRANSPOSE", "RESHAPE", "GATHER"}
Array = NDArray[Any]
Fixture = Callable[..., Any]


def lowered(graph: Graph, precision: Precision, profile: str = "litert-cpu") -> Graph:
    return lower(graph, profile_named(profile).rewrites(precision))


def interpreter(path: Path, kernels: OpResolverType = OpResolverType.AUTO) -> Any:
    return Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels)


def run(litert: Any, image: Array) -> Array:
    """Run an interpreter on an N × C × H × W picture of any size; return real numbers likewise."""
    (source,), (target,) = litert.get_input_details(), litert.get_output_details()
    fed = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    if source["dtype"] == np.int8:
        scale, zero_point = source["quantization"]
        fed = np.clip(np.rint(fed / scale) + zero_point, -128, 127).astype(np.int8)
    litert.resize_tensor_input(source["index"], fed.shape)
    litert.allocate_tensors()
    litert.set_tensor(source["index"], fed)
    litert.invoke()
    result: Array = litert.get_tensor(target["index"]).transpose(0, 3, 1, 2)
    if target["dtype"] == np.int8:
        scale, zero_point = target["quantization"]
        result = (result.astype(np.float64) - zero_point) * scale
    return result


def executed(graph: Graph, image: Array) -> Array:
    result: Array = execute(graph, torch.from_numpy(image)).numpy()
    return result


def model_of(path: Path) -> Any:
    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


# --- whole networks --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("model", MODELS)
def test_float_files_agree_with_torch_at_every_size(
    tmp_path: Path,
    captured: Fixture,
    picture: Fixture,
    model: str,
    scale: int,
    precision: Precision,
) -> None:
    path, network = tmp_path / "file.tflite", captured(model, scale)
    written = write_tflite(lowered(network.graph, precision), path, precision)
    litert = interpreter(path)
    for height, width in SIZES:
        image = picture(height, width)
        restored = run(litert, image)
        assert restored.shape == (1, 3, scale * height, scale * width)
        expected = network.restore(image)
        np.testing.assert_allclose(restored, expected, rtol=0, atol=TOLERANCE[precision])
    assert not BANNED & set(written.operators)
    assert ("DEQUANTIZE" in written.operators) == (precision == "float16")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_int8_files_agree_with_their_simulation(
    tmp_path: Path,
    captured: Fixture,
    picture: Fixture,
    calibrated: Fixture,
    simulated: Fixture,
    model: str,
) -> None:
    graph = lowered(captured(model, 4).graph, "int8")
    table = calibrated(graph, picture(24, 20))
    interpreters = []
    for float_io in (False, True):
        path = tmp_path / f"{float_io}.tflite"
        written = write_tflite(graph, path, "int8", table, float_io=float_io)
        assert not BANNED & set(written.operators)
        assert {"QUANTIZE", "DEQUANTIZE"} & set(written.operators) == (
            {"QUANTIZE", "DEQUANTIZE"} if float_io else set()
        )
        interpreters.append(interpreter(path))
    for size in ((24, 20), (1, 1), (1, 7)):
        image = picture(*size)
        of_integers, of_floats = (np.rint(run(litert, image) * 255) for litert in interpreters)
        np.testing.assert_array_equal(of_integers, of_floats)
        expected = simulated(graph, table, image) * 255
        np.testing.assert_allclose(of_integers, expected, rtol=0, atol=2.01)
        assert np.ptp(expected) > 9 or size == (1, 1)  # a constant picture would prove nothing


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_carn_x4_needs_at_most_60_operators(
    tmp_path: Path, captured: Fixture, picture: Fixture, calibrated: Fixture, precision: Precision
) -> None:
    graph, path = lowered(captured("carn", 4).graph, precision), tmp_path / "file.tflite"
    written = write_tflite(graph, path, precision, calibrated(graph, picture(4, 4)))
    (subgraph,) = model_of(path).subgraphs
    assert len(subgraph.operators) == sum(written.operators.values()) <= 60


@pytest.mark.parametrize(("precision", "width"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_recursive_weights_are_stored_once(
    tmp_path: Path,
    captured: Fixture,
    picture: Fixture,
    calibrated: Fixture,
    precision: Precision,
    width: int,
) -> None:
    graph, path = lowered(captured("carn-m", 4).graph, precision), tmp_path / "file.tflite"
    write_tflite(graph, path, precision, calibrated(graph, picture(4, 4)))
    # CARN-M runs each residual block three times; weights stored three times would need 230 kB
    # more, even as int8. The rest of the file is scales, names and operators.
    reads = [node.inputs[1] for node in graph.nodes if node.op == "Conv"]
    assert len(reads) > len(set(reads))
    weights = width * sum(array.size for array in graph.constants.values())
    assert weights < path.stat().st_size < weights + 110_000


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_npu_files_have_a_fixed_shape_and_no_shuffles(
    tmp_path: Path,
    captured: Fixture,
    picture: Fixture,
    calibrated: Fixture,
    simulated: Fixture,
    precision: Precision,
) -> None:
    graph = lowered(captured("carn-m", 4).graph, precision, "ethos-u")
    image, path = picture(9, 13), tmp_path / "file.tflite"
    table = calibrated(graph, image)
    written = write_tflite(graph, path, precision, table, size=(9, 13))
    assert written.input.shape == (1, 9, 13, 3)
    assert written.output.shape == (1, 36, 52, 3)
    # The first shuffle, a branch for each group, and the second, behind the last convolution.
    assert written.operators["TRANSPOSE_CONV"] == 4 + 1
    assert "DEPTH_TO_SPACE" not in written.operators
    (tensor,) = interpreter(path).get_input_details()
    assert tensor["shape"].tolist() == tensor["shape_signature"].tolist() == [1, 9, 13, 3]
    expected, tolerance = simulated(graph, table, image), 2.01 / 255
    if precision != "int8":
        expected, tolerance = executed(graph, image), TOLERANCE[precision]
    np.testing.assert_allclose(run(interpreter(path), image), expected, rtol=0, atol=tolerance)


# --- what only TFLite does: see test_operators.py for each operator ----------------------------


def weights(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def last(op: str, *inputs: str, **attributes: Any) -> Node:
    return Node(op, op, inputs, ("restored_image",), attributes)


def after_two(*nodes: Node, channels: int = 3, **constants: Array) -> Graph:
    """Return ``nodes`` after two convolutions whose outputs, a and b, have either sign."""
    two = [
        Node("Conv", value, ("image", f"w{value}", "bias"), (value,), {"groups": 1})
        for value in ("a", "b")
        if any(value in node.inputs for node in nodes)
    ]
    own = {"wa": weights(channels, 3, 3, 3, seed=3), "wb": weights(channels, 3, 1, 1, seed=4)}
    own["bias"] = weights(channels, seed=5)
    return Graph((*two, *nodes), {**own, **constants}).with_nodes([*two, *nodes])


def shuffle(block: int, mode: str) -> Graph:
    return after_two(last("DepthToSpace", "a", block=block, mode=mode), channels=3 * block**2)


KERNELS = pytest.mark.parametrize(
    "kernels",
    [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES],
    ids=["xnnpack", "builtin"],
)


@KERNELS
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_transposed_convolutions_shuffle(
    tmp_path: Path,
    picture: Fixture,
    calibrated: Fixture,
    precision: Precision,
    kernels: OpResolverType,
) -> None:
    shuffles, image, path = shuffle(2, "CRD"), picture(4, 5), tmp_path / "file.tflite"
    graph = use_transposed_convolutions(shuffles)
    table = calibrated(graph, image, output=None)
    write_tflite(graph, path, precision, table, size=(4, 5))
    quantum = table.of("restored_image").scale
    tolerance = 2.01 * quantum if precision == "int8" else TOLERANCE[precision]
    found = run(interpreter(path, kernels), image)
    np.testing.assert_allclose(found, executed(shuffles, image), rtol=0, atol=tolerance)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1), (1,), ()])
def test_constants_broadcast_over_channels(
    tmp_path: Path, picture: Fixture, op: str, shape: tuple[int, ...]
) -> None:
    constants = {"k": weights(*shape).reshape(shape)}
    graph, path = Graph((last(op, "image", "k"),), constants), tmp_path / "file.tflite"
    write_tflite(graph, path, "float32")
    image = picture(3, 4)
    expected = executed(graph, image)
    np.testing.assert_allclose(run(interpreter(path), image), expected, rtol=0, atol=1e-6)


def test_requantization_brings_values_to_one_scale(
    tmp_path: Path,
    operator_graphs: Fixture,
    picture: Fixture,
    calibrated: Fixture,
    simulated: Fixture,
) -> None:
    pairs = (("a", "restored_image"), ("b", "restored_image"))
    path, image = tmp_path / "file.tflite", picture(6, 9)
    table = calibrated(operator_graphs["Concat"], image, output=None, requantized=pairs)
    wide = {"restored_image": Quantization.of_range(-3, 4)}
    table = dataclasses.replace(table, activations={**table.activations, **wide})
    graph = with_requantization(operator_graphs["Concat"], table)
    written = write_tflite(graph, path, "int8", table)
    assert written.operators == {"CONCATENATION": 1, "CONV_2D": 2, "QUANTIZE": 2}
    expected, quantum = simulated(graph, table, image), wide["restored_image"].scale
    np.testing.assert_allclose(run(interpreter(path), image), expected, rtol=0, atol=1.01 * quantum)


def test_the_carried_mean_leaves_every_pixel_as_it_is(tmp_path: Path, calibrated: Fixture) -> None:
    means = np.float32([0.4488, 0.4371, 0.4040]).reshape(1, 3, 1, 1)
    whole = Graph(
        (
            Node("Sub", "shift", ("image", "means"), ("shifted",)),
            last("Conv", "shifted", "w", "b", groups=1),
        ),
        {"means": means, "w": weights(3, 3, 3, 3), "b": weights(3)},
    )
    graph, path = lower(whole, ["carry_mean_as_channel"]), tmp_path / "file.tflite"
    copy = graph.nodes[0]
    levels = np.arange(256).repeat(3).reshape(1, 16, 16, 3).transpose(0, 3, 1, 2)
    image = (levels / 255).astype(np.float32)
    table = calibrated(graph, image, output=None)

    write_tflite(dataclasses.replace(graph, nodes=(copy,), output=copy.output), path, "int8", table)
    copied = np.rint(run(interpreter(path), image) * 255)
    np.testing.assert_array_equal(copied[:, :3], levels)
    np.testing.assert_array_equal(copied[:, 3], 255)

    write_tflite(graph, path, "int8", table)
    # Only kernels and the result are rounded, so that few quanta part them from the float network.
    tolerance = 3 * table.of("restored_image").scale
    expected = executed(whole, image)
    np.testing.assert_allclose(run(interpreter(path), image), expected, rtol=0, atol=tolerance)


# --- the file itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "float_io", "dtype", "scale", "zero_point"),
    [
        ("float32", False, "float32", None, None),
        ("float16", False, "float32", None, None),
        ("int8", False, "int8", pytest.approx(1 / 255), -128),
        ("int8", True, "float32", None, None),
    ],
)
def test_apps_find_the_picture_by_name(
    tmp_path: Path,
    operator_graphs: Fixture,
    picture: Fixture,
    calibrated: Fixture,
    precision: Precision,
    float_io: bool,
    dtype: str,
    scale: float | None,
    zero_point: int | None,
) -> None:
    graph, path = operator_graphs["Relu"], tmp_path / "file.tflite"
    table = calibrated(graph, picture(3, 3))
    written = write_tflite(graph, path, precision, table, (5, 6), float_io)
    for info, name in ((written.input, "image"), (written.output, "restored_image")):
        assert (info.name, info.layout, info.shape) == (name, "NHWC", (1, 5, 6, 3))
        assert (info.dtype, info.scale, info.zero_point) == (dtype, scale, zero_point)
    names = [tensor.name for tensor in model_of(path).subgraphs[0].tensors]
    assert len(names) == len(set(names))
    litert = interpreter(path)
    assert litert.get_input_details()[0]["name"] == "image"
    assert litert.get_output_details()[0]["name"] == "restored_image"
    litert.allocate_tensors()
    runner = litert.get_signature_runner("serving_default")
    restored = runner(image=np.zeros((1, 5, 6, 3), dtype))
    assert list(restored) == ["restored_image"]
    assert (restored["restored_image"].dtype, restored["restored_image"].shape) == (
        np.dtype(dtype),
        (1, 5, 6, 3),
    )


def test_a_file_without_a_size_leaves_it_to_the_app(
    tmp_path: Path, operator_graphs: Fixture
) -> None:
    written = write_tflite(
        operator_graphs["DepthToSpace DCR 2"], tmp_path / "file.tflite", "float32"
    )
    assert written.input.shape == written.output.shape == (1, None, None, 3)
    litert = interpreter(tmp_path / "file.tflite")
    assert litert.get_input_details()[0]["shape_signature"].tolist() == [1, -1, -1, 3]
    assert litert.get_output_details()[0]["shape_signature"].tolist() == [1, -1, -1, 3]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_rows_of_shuffles_are_joined_in_files_of_a_fixed_size(
    precision: Precision,
    tmp_path: Path,
    operator_graphs: Fixture,
    picture: Fixture,
    calibrated: Fixture,
) -> None:
    native, image = operator_graphs["DepthToSpace DCR 3"], picture(5, 6)
    rows = native.with_nodes(
        dataclasses.replace(node, attributes={"block": 3, "mode": "ROWS"})
        if node.op == "DepthToSpace"
        else node
        for node in native.nodes
    )
    table = calibrated(native, image, None)
    restored = []
    for graph, size in ((native, (5, 6)), (rows, None), (rows, (5, 6))):
        path = tmp_path / "file.tflite"
        written = write_tflite(graph, path, precision, table, size)
        restored.append(run(interpreter(path), image))
        np.testing.assert_array_equal(restored[-1], restored[0])
        moves = {name: written.operators.get(name, 0) for name in ("DEPTH_TO_SPACE", "RESHAPE")}
        joined = graph is rows and size is not None
        assert moves == {"DEPTH_TO_SPACE": 0 if joined else 1, "RESHAPE": 4 if joined else 0}


# From TensorFlow's versioning/op_version.cc and versioning/runtime_version.cc.
@pytest.mark.parametrize(
    ("name", "precision", "versions", "runtime"),
    [
        ("Conv 3×3", "float32", {"CONV_2D": 1}, b"1.5.0"),
        ("Conv 3×3", "float16", {"CONV_2D": 1, "DEQUANTIZE": 3}, b"1.15.0"),
        ("Conv 3×3", "int8", {"CONV_2D": 3}, b"1.14.0"),
        ("Conv per channel", "float32", {"CONV_2D": 6}, b"2.9.0"),
        ("Conv per channel", "int8", {"CONV_2D": 6}, b"2.9.0"),
        ("DepthToSpace DCR 2", "float32", {"CONV_2D": 1, "DEPTH_TO_SPACE": 1}, b"2.1.0"),
        ("DepthToSpace DCR 2", "int8", {"CONV_2D": 3, "DEPTH_TO_SPACE": 2}, b"2.5.0"),
        ("LeakyRelu", "int8", {"CONV_2D": 3, "LEAKY_RELU": 1}, b"1.14.0"),
        ("Mul", "int8", {"CONV_2D": 3, "MUL": 2}, b"1.14.0"),
    ],
)
def test_versions_are_the_oldest_that_suffice(
    tmp_path: Path,
    operator_graphs: Fixture,
    picture: Fixture,
    calibrated: Fixture,
    name: str,
    precision: Precision,
    versions: dict[str, int],
    runtime: bytes,
) -> None:
    graph, path = operator_graphs[name], tmp_path / "file.tflite"
    write_tflite(graph, path, precision, calibrated(graph, picture(4, 4), output=None))
    model = model_of(path)
    assert versions_in(model) == versions
    (metadata,) = (one for one in model.metadata if one.name == b"min_runtime_version")
    assert bytes(model.buffers[metadata.buffer].data) == runtime.ljust(16, b"\0")


def test_a_growing_product_asks_for_a_newer_kernel(
    tmp_path: Path, operator_graphs: Fixture, picture: Fixture, calibrated: Fixture
) -> None:
    graph, path = operator_graphs["Mul"], tmp_path / "file.tflite"
    table = calibrated(graph, picture(4, 4), output=Quantization(1e-6, 0))
    write_tflite(graph, path, "int8", table)
    assert versions_in(model_of(path))["MUL"] == 3


def versions_in(model: Any) -> dict[str, int]:
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    return {names[code.builtinCode]: code.version for code in model.operatorCodes}


def test_weights_are_aligned_as_the_schema_demands(
    tmp_path: Path, captured: Fixture, picture: Fixture, calibrated: Fixture
) -> None:
    graph, path = lowered(captured("carn-m", 4).graph, "int8"), tmp_path / "file.tflite"
    write_tflite(graph, path, "int8", calibrated(graph, picture(4, 4)))
    content = np.fromfile(path, np.uint8)
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [
        buffer.DataAsNumpy().__array_interface__["data"][0] - content.__array_interface__["data"][0]
        for buffer in buffers
        if not buffer.DataIsNone()
    ]
    assert len(starts) > 50
    assert {start % 16 for start in starts} == {0}


@pytest.mark.parametrize("name", ["Conv 3×3", "Conv in groups"])
def test_biases_have_the_scale_of_what_they_are_added_to(
    tmp_path: Path, operator_graphs: Fixture, picture: Fixture, calibrated: Fixture, name: str
) -> None:
    graph, path = operator_graphs[name], tmp_path / "file.tflite"
    write_tflite(graph, path, "int8", calibrated(graph, picture(4, 4), output=None))
    (subgraph,) = model_of(path).subgraphs
    for operator in subgraph.operators:
        value, weight, bias = (subgraph.tensors[i].quantization for i in operator.inputs)
        np.testing.assert_allclose(bias.scale, value.scale * weight.scale, rtol=1e-6)
        assert not weight.zeroPoint.any() and not bias.zeroPoint.any()
        assert weight.quantizedDimension == 0
        assert len(weight.scale) == subgraph.tensors[operator.inputs[1]].shape[0]


# --- what cannot be written ------------------------------------------------------------------


def refusal(
    graph: Graph,
    folder: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
) -> str:
    """Return the message; a file that was there before must stay as it was."""
    path = folder / "file.tflite"
    path.write_bytes(b"former")
    with pytest.raises(CannotLower) as caught:
        write_tflite(graph, path, precision, table, size)
    assert [one.read_bytes() for one in folder.iterdir()] == [b"former"]
    return str(caught.value)


def test_crd_shuffles_are_refused_with_the_rewrite(tmp_path: Path) -> None:
    assert "use_dcr_shuffles" in refusal(shuffle(2, "CRD"), tmp_path, "float32")


def test_transposed_convolutions_need_a_size(tmp_path: Path) -> None:
    graph = use_transposed_convolutions(shuffle(2, "CRD"))
    assert "need fixed shapes" in refusal(graph, tmp_path, "float32")


@pytest.mark.parametrize("name", ["Concat", "DepthToSpace DCR 2"])
def test_values_are_not_moved_between_scales(
    tmp_path: Path, operator_graphs: Fixture, picture: Fixture, calibrated: Fixture, name: str
) -> None:
    table = calibrated(operator_graphs[name], picture(4, 4), output=Quantization(0.5, 0))
    assert "different scales" in refusal(operator_graphs[name], tmp_path, "int8", table)


def test_int8_without_scales_is_refused(tmp_path: Path, operator_graphs: Fixture) -> None:
    with pytest.raises(UserError, match="reslite quantize"):
        write_tflite(operator_graphs["Add"], tmp_path / "file.tflite", "int8")
