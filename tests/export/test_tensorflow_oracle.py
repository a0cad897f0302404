"""TensorFlow as an independent oracle: its interpreter and its own converter must agree with us.

The converter gets the lowered network as a tf.function. For int8 the function carries our ranges
as fake-quantization operators, so that it must arrive at the integers our writer takes from the
table of scales.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from export.execution import execute
from export.graph import Graph, Node
from export.integers import weight_scales
from export.lowering import lower
from export.profiles import profile_named
from export.scales import ScaleTable
from export.writers.tflite_writer import write_tflite
from runtime.formats import Precision

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

MODELS = ("carn", "carn-m")
Array = NDArray[Any]
Fixture = Callable[..., Any]


@pytest.fixture(scope="module")
def tf() -> Any:
    reason = "needs TensorFlow: pip install 'reslite[tensorflow]'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow", reason=reason)


@pytest.fixture
def crop(astronaut: NDArray[np.uint8]) -> Array:
    """A face, N × C × H × W in [0, 1]."""
    return astronaut[80:112, 200:240].transpose(2, 0, 1)[None].astype(np.float32) / 255


def lowered(graph: Graph, precision: Precision) -> Graph:
    return lower(graph, profile_named("litert-cpu").rewrites(precision))


def run(interpreter: Any, image: Array) -> Array:
    """Run either interpreter on an N × C × H × W picture; integers come back as integers."""
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    fed = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    if source["dtype"] == np.int8:
        fed = (np.rint(fed * 255) - 128).astype(np.int8)
    interpreter.resize_tensor_input(source["index"], fed.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], fed)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(target["index"]).transpose(0, 3, 1, 2))


def converted(
    tf: Any, graph: Graph, size: tuple[int, ...], table: ScaleTable | None = None
) -> bytes:
    """Return TensorFlow's own .tflite of a graph."""
    module = tf.Module()
    module.restore = tf.function(lambda image: _restored(tf, graph, image, table), autograph=False)
    function = module.restore.get_concrete_function(tf.TensorSpec((1, *size, 3), name="image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if table is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def _restored(tf: Any, graph: Graph, image: Any, table: ScaleTable | None) -> Any:
    """Walk the graph with TensorFlow's operators."""

    def rounded(name: str, value: Any) -> Any:
        if table is None:
            return value
        found = table.of(graph.origin(name))
        low, high = (found.scale * (end - found.zero_point) for end in (-128, 127))
        return tf.quantization.fake_quant_with_min_max_args(value, low, high)

    values = {graph.input: rounded(graph.input, image)}
    for node in graph.nodes:
        result = _applied(tf, graph, node, values, quantized=table is not None)
        results = result if node.op == "Split" else [result]
        for name, value in zip(node.outputs, results, strict=True):
            hidden = graph.fused_relu(node) is not None
            values[name] = value if hidden else rounded(name, value)
    return tf.identity(values[graph.output], name="restored_image")


def _applied(tf: Any, graph: Graph, node: Node, values: dict[str, Any], quantized: bool) -> Any:
    x = [
        tf.constant(graph.constants[name].transpose(0, 2, 3, 1))
        if graph.is_constant(name) and node.op != "Conv"
        else values.get(name)
        for name in node.inputs
    ]
    match node.op:
        case "Conv":
            weight, bias = (graph.constants[name] for name in node.inputs[1:])
            kernel = tf.constant(weight.transpose(2, 3, 1, 0))
            if quantized:
                limit = 127 * weight_scales(weight)
                kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                    kernel, -limit, limit, narrow_range=True
                )
            return tf.nn.bias_add(tf.nn.conv2d(x[0], kernel, 1, "SAME"), bias)
        case "Relu":
            return tf.nn.relu(x[0])
        case "Add":
            return x[0] + x[1]
        case "Sub":
            return x[0] - x[1]
        case "Concat":
            return tf.concat(x, axis=3)
        case "Split":
            return tf.split(x[0], len(node.outputs), axis=3)
        case "DepthToSpace":
            return tf.nn.depth_to_space(x[0], node.integer("block"))
    raise AssertionError(f"CARN has no {node.op}")


class Contents:
    """What a .tflite holds, read with the schema.

    Attributes:
        operators: How often each operator occurs.
        versions: The newest version of each operator; TensorFlow gives it to all of the kind.
        runtime: The oldest TensorFlow Lite that runs it.
        kernels: Weights and biases of its convolutions, in order, as they are stored.
    """

    def __init__(self, content: bytes) -> None:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
        (graph,) = model.subgraphs
        codes = [model.operatorCodes[operator.opcodeIndex] for operator in graph.operators]
        self.operators = Counter(names[code.builtinCode] for code in codes)
        self.versions = {
            names[code.builtinCode]: code.version
            for code in sorted(codes, key=lambda code: code.version)
        }
        self.runtime = next(
            bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()
            for entry in model.metadata
            if entry.name == b"min_runtime_version"
        )
        self.kernels = [
            np.asarray(model.buffers[graph.tensors[index].buffer].data).view(dtype)
            for code, operator in zip(codes, graph.operators, strict=True)
            if code.builtinCode == schema.BuiltinOperator.CONV_2D
            for index, dtype in zip(operator.inputs[1:], (np.int8, np.int32), strict=True)
        ]


def check_likeness(ours: Contents, theirs: Contents) -> None:
    assert ours.operators == theirs.operators
    assert ours.versions == theirs.versions
    assert ours.runtime == theirs.runtime


def psnr(restored: Array, expected: Array) -> float:
    return float(-10 * np.log10(np.mean((restored - expected) ** 2)))


@pytest.mark.filterwarnings("ignore:(?s).*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_its_interpreter_gets_the_outputs_litert_gets(
    tf: Any,
    tmp_path: Path,
    captured: Fixture,
    calibrated: Fixture,
    crop: Array,
    model: str,
    precision: Precision,
) -> None:
    graph, path = lowered(captured(model, 4).graph, precision), str(tmp_path / "file.tflite")
    write_tflite(graph, Path(path), precision, calibrated(graph, crop))
    theirs, ours = tf.lite.Interpreter(path, num_threads=1), Interpreter(path, num_threads=1)
    tolerance = 0 if precision == "int8" else 1e-6
    for image in (crop, crop[..., :1, :7]):
        np.testing.assert_allclose(run(theirs, image), run(ours, image), rtol=0, atol=tolerance)


@pytest.mark.parametrize("model", MODELS)
def test_its_converter_makes_the_same_float32_file(
    tf: Any, tmp_path: Path, captured: Fixture, crop: Array, model: str
) -> None:
    graph, path = lowered(captured(model, 4).graph, "float32"), tmp_path / "file.tflite"
    write_tflite(graph, path, "float32")
    theirs, ours = converted(tf, graph, crop.shape[2:]), path.read_bytes()
    check_likeness(Contents(ours), Contents(theirs))
    np.testing.assert_allclose(
        run(Interpreter(model_content=ours), crop),
        run(Interpreter(model_content=theirs), crop),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("model", MODELS)
def test_its_converter_makes_the_same_int8_file(
    tf: Any, tmp_path: Path, captured: Fixture, calibrated: Fixture, crop: Array, model: str
) -> None:
    # TensorFlow merges the first convolution with its positive half.
    rewrites = [one for one in profile_named("litert-cpu").rewrites("int8") if one != "split_signs"]
    graph, path = lower(captured(model, 4).graph, rewrites), tmp_path / "file.tflite"
    table = calibrated(graph, crop)
    write_tflite(graph, path, "int8", table)
    theirs, ours = converted(tf, graph, crop.shape[2:], table), path.read_bytes()
    check_likeness(Contents(ours), Contents(theirs))
    for found, expected in zip(Contents(ours).kernels, Contents(theirs).kernels, strict=True):
        # Numbers halfway between two integers may go either way; TensorFlow divides in float32.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1)
        assert np.sum(found != expected) <= 1 + found.size // 100

    expected = execute(graph, torch.from_numpy(crop)).numpy()
    accuracies = [
        psnr((run(Interpreter(model_content=content), crop) + 128.0) / 255, expected)
        for content in (ours, theirs)
    ]
    assert min(accuracies) > 40
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.05)
