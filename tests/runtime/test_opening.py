"""Artifacts of every format agree with torch or NumPy; files that are not artifacts are refused."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import get_new_symbol
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image
from torch.nn import functional

import runtime
from runtime import opening
from runtime.engines.engine import Engine
from runtime.errors import UserError
from runtime.opening import available_cores

Write = Callable[..., Path]


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).random((height, width, 3), np.float32)


def _planes(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(image).permute(2, 0, 1)[None]


def _upsampled(features: torch.Tensor) -> np.ndarray:
    """DEPTH_TO_SPACE of TFLite: channel (i·2 + j)·3 + c is pixel (i, j), colour c."""
    _, _, height, width = features.shape
    blocks = features[0].reshape(2, 2, 3, height, width).permute(3, 0, 4, 1, 2)
    return blocks.reshape(2 * height, 2 * width, 3).numpy()


# TFLite


def test_float_tflite_equals_torch(
    tmp_path: Path, write_tflite: Write, tflite_weights: tuple[np.ndarray, np.ndarray]
) -> None:
    weights, biases = (torch.tensor(values) for values in tflite_weights)
    with runtime.open(write_tflite(tmp_path / "a.tflite"), threads=1) as session:
        assert (session.scale, session.halo, session.fixed_size) == (2, None, None)
        assert session.runtime_name.startswith("LiteRT 2.")
        for size in ((5, 9), (7, 3), (1, 1), (5, 9)):
            image = _image(*size)
            features = functional.conv2d(
                _planes(image), weights.permute(0, 3, 1, 2), biases, padding=1
            )
            restored = session.run(image)
            assert restored.dtype == np.float32
            np.testing.assert_allclose(restored, _upsampled(features), atol=1e-6)


def test_int8_tflite_equals_integer_arithmetic(
    tmp_path: Path, write_tflite: Write, quantized_tflite: dict[str, Any]
) -> None:
    table = quantized_tflite
    levels = np.random.default_rng(5).integers(0, 256, (6, 8, 3))
    # The input's scale is 1/255, its zero point −128: levels become levels − 128 without loss, and
    # zero padding is the level 0.
    products = functional.conv2d(
        _planes(levels.astype(np.float64)),
        torch.tensor(table["weights"].astype(np.float64)).permute(0, 3, 1, 2),
        torch.tensor(table["biases"].astype(np.float64)),
        padding=1,
    )
    scale, zero_point = table["output"]
    factors = torch.tensor(table["scales"] * table["input"][0] / scale)[None, :, None, None]
    quantized = (torch.round(products * factors) + zero_point).clamp(-128, 127)
    expected = _upsampled((quantized - zero_point) * scale)

    with runtime.open(write_tflite(tmp_path / "a.tflite", int8=True), threads=1) as session:
        restored = session.run((levels / 255).astype(np.float32))

    # The fixed-point multiplier may tip a rounding by one quantum.
    quanta = (restored - expected) / scale
    assert np.abs(quanta).max() < 1.01
    assert np.mean(np.abs(quanta) < 0.01) > 0.99
    assert len(np.unique(quanta.round())) <= 3
    assert expected.std() > 0.05


def test_int8_rounds_half_to_even_and_clips(tmp_path: Path, flatbuffer_model: type[Any]) -> None:
    # A network that takes q = x / 0.5 + 3 to float again: the picture itself, quantized.
    model, kinds = flatbuffer_model(), schema.TensorType
    image = model.tensor("image", [1, -1, -1, 3], kinds.INT8, None, (0.5, 3))
    restored = model.tensor("restored_image", [1, -1, -1, 3], kinds.INT8, None, (0.5, 3))
    kernel = np.zeros((3, 3, 3, 3), np.int8)
    kernel[[0, 1, 2], 1, 1, [0, 1, 2]] = 127
    weights = model.tensor("w", [3, 3, 3, 3], kinds.INT8, kernel, ([1 / 127] * 3, [0] * 3))
    biases = model.tensor("b", [3], kinds.INT32, np.zeros(3, np.int32), ([0.5 / 127] * 3, [0] * 3))
    model.convolution([image, weights, biases], restored, 3)
    path = model.write(tmp_path / "identity.tflite", [image], [restored])
    picture = np.float32([[[0.25, 0.75, 1.25], [-0.25, -0.75, 0.5], [1000, -1000, 0]]])

    with runtime.open(path, threads=1) as session:
        assert session.scale == 1
        restored_picture = session.run(picture)

    # Halves: 0.5 → 0, 1.5 → 2, 2.5 → 2, −0.5 → 0, −1.5 → −2; q is at most 127 and at least −128.
    expected = [[0.0, 1.0, 1.0], [0.0, -1.0, 0.5], [62.0, -65.5, 0.0]]
    np.testing.assert_allclose(restored_picture[0], expected, atol=1e-6)


def test_half_float_tflite_input(tmp_path: Path, flatbuffer_model: type[Any]) -> None:
    model, kinds = flatbuffer_model(), schema.TensorType
    image = model.tensor("image", [1, -1, -1, 3], kinds.FLOAT16)
    restored = model.tensor("restored_image", [1, -1, -1, 3], kinds.FLOAT32)
    model.operator("CAST", [image], restored, 1, inDataType=kinds.FLOAT16,
                   outDataType=kinds.FLOAT32)  # fmt: skip
    path = model.write(tmp_path / "half.tflite", [image], [restored])

    with runtime.open(path) as session:
        restored_picture = session.run(_image(3, 4))

    np.testing.assert_array_equal(restored_picture, _image(3, 4).astype(np.float16))


def test_tflite_tensors_without_scale_or_of_other_types_are_refused(
    tmp_path: Path, flatbuffer_model: type[Any]
) -> None:
    kinds = schema.TensorType
    for kind, message in (
        (kinds.INT8, "int8 without a scale"),
        (kinds.INT32, "is int32, expected"),
    ):
        model = flatbuffer_model()
        image = model.tensor("image", [1, 8, 8, 3], kind)
        restored = model.tensor("restored", [1, 8, 8, 3], kinds.FLOAT32)
        model.operator("CAST", [image], restored, 1)
        path = model.write(tmp_path / "a.tflite", [image], [restored])
        with pytest.raises(UserError, match=message):
            runtime.open(path)


def test_fixed_size_tflite(tmp_path: Path, write_tflite: Write) -> None:
    path = write_tflite(tmp_path / "a.tflite", size=(6, 10))
    free = runtime.open(write_tflite(tmp_path / "free.tflite"), threads=1)

    with runtime.open(path, threads=1) as session:
        assert (session.scale, session.fixed_size) == (2, (6, 10))
        np.testing.assert_allclose(session.run(_image(6, 10)), free.run(_image(6, 10)), atol=1e-6)
        with pytest.raises(UserError, match="6×10 only; got 10×6; restore with tiles"):
            session.run(_image(10, 6))


def test_a_size_that_the_network_cannot_take(
    tmp_path: Path, flatbuffer_model: type[Any], write_manifest: Callable[..., Any]
) -> None:
    # A 3×3 convolution without padding has no output for one pixel.
    model, kinds = flatbuffer_model(), schema.TensorType
    image = model.tensor("image", [1, -1, -1, 3], kinds.FLOAT32)
    restored = model.tensor("restored_image", [1, -1, -1, 3], kinds.FLOAT32)
    weights = model.tensor("w", [3, 3, 3, 3], kinds.FLOAT32, np.ones((3, 3, 3, 3), np.float32))
    biases = model.tensor("b", [3], kinds.FLOAT32, np.zeros(3, np.float32))
    model.operator("CONV_2D", [image, weights, biases], restored, 1, strideW=1, strideH=1,
                   padding=schema.Padding.VALID, dilationWFactor=1, dilationHFactor=1)  # fmt: skip
    path = model.write(tmp_path / "a.tflite", [image], [restored])
    write_manifest(path, scale=1, halo=1)

    with (
        runtime.open(path) as session,
        pytest.raises(UserError, match=r"at 1×1 .*tiles of another"),
    ):
        session.run(_image(1, 1))


def test_tflite_runtime_serves_where_litert_is_missing(
    tmp_path: Path, write_tflite: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = write_tflite(tmp_path / "a.tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(UserError, match="pip install ai-edge-litert, or use"):
        runtime.open(path)

    module = types.ModuleType("tflite_runtime.interpreter")
    module.Interpreter = Interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime", types.ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
    monkeypatch.setattr("runtime.engines.litert_engine.metadata.version", lambda name: f"of {name}")
    with runtime.open(path) as session:
        assert session.runtime_name == "TFLite Runtime of tflite-runtime"
        assert session.run(_image(4, 4)).shape == (8, 8, 3)


# ONNX


@pytest.mark.parametrize("engine", [None, "onnxruntime", "openvino"])
@pytest.mark.parametrize("half", [False, True])
def test_onnx_equals_the_reference_evaluator(
    tmp_path: Path, write_onnx: Write, engine: str | None, half: bool
) -> None:
    path = write_onnx(tmp_path / "a.onnx", half=half)
    reference = ReferenceEvaluator(str(path))
    with runtime.open(path, runtime=engine, threads=1) as session:
        assert (session.scale, session.halo, session.fixed_size) == (2, None, None)
        for size in ((5, 9), (7, 3), (1, 1), (5, 9)):
            image = _image(*size)
            planes = _planes(image).numpy().astype(np.float16 if half else np.float32)
            expected = reference.run(None, {"image": planes})[0][0].transpose(1, 2, 0)
            restored = session.run(image)
            assert restored.dtype == np.float32
            np.testing.assert_allclose(restored, expected, atol=5e-3 if half else 1e-5)


def test_the_runtimes_name_tells_what_really_runs(tmp_path: Path, write_onnx: Write) -> None:
    path = write_onnx(tmp_path / "a.onnx")

    name = runtime.open(path).runtime_name
    assert name == f"ONNX Runtime {onnxruntime.__version__} CPUExecutionProvider"
    vino = runtime.open(path, runtime="openvino").runtime_name
    assert vino.startswith("OpenVINO 20")
    assert vino.endswith(" CPU (f32)")


def test_missing_runtimes_name_what_to_install(
    tmp_path: Path, write_onnx: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        runtime.open(write_onnx(tmp_path / "a.onnx"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"pip install 'reslite\[openvino\]'"):
        runtime.open(write_onnx(tmp_path / "a.onnx"), runtime="openvino")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_fixed_size_onnx(tmp_path: Path, write_onnx: Write, engine: str) -> None:
    path = write_onnx(tmp_path / "a.onnx", size=(6, 10), scale=3)
    with runtime.open(path, runtime=engine) as session:
        assert (session.scale, session.fixed_size) == (3, (6, 10))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 1}, r"its input is 1×1×\?×\?, expected one RGB picture \(NCHW\)"),
        ({"inputs": 2}, "2 inputs found, one picture expected"),
        ({"size": (8, "width")}, "only one of height and width is fixed"),
    ],
)
def test_networks_that_take_no_picture_are_refused(
    tmp_path: Path, write_onnx: Write, engine: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        runtime.open(write_onnx(tmp_path / "a.onnx", **options), runtime=engine)


def _single_node(path: Path, node: onnx.NodeProto, kind: int = TensorProto.FLOAT) -> Path:
    image = helper.make_tensor_value_info("image", kind, [1, 3, "h", "w"])
    restored = helper.make_tensor_value_info("restored", kind, None)
    graph = helper.make_graph([node], "network", [image], [restored])
    opset = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    )
    return path


def test_integer_onnx_pictures_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["image"], ["restored"])
    with pytest.raises(UserError, match=r"tensor\(uint8\), expected float or float16"):
        runtime.open(_single_node(tmp_path / "a.onnx", node, TensorProto.UINT8))


def test_a_network_that_shrinks_pictures_is_refused(tmp_path: Path) -> None:
    node = helper.make_node(
        "AveragePool", ["image"], ["restored"], kernel_shape=[2, 2], strides=[2, 2]
    )
    with pytest.raises(UserError, match="turns 8×8×3 into 4×4×3; expected a whole multiple"):
        runtime.open(_single_node(tmp_path / "a.onnx", node))


# All formats


def test_run_is_prepare_invoke_result(onnx_session: Any) -> None:
    image = _image(5, 6)
    onnx_session.prepare(image)
    onnx_session.invoke()
    first = onnx_session.result()

    np.testing.assert_array_equal(first, onnx_session.run(image))


@pytest.mark.parametrize("name", ["a.tflite", "a.onnx", "b.onnx"])
def test_results_outlive_the_next_inference(
    tmp_path: Path, write_tflite: Write, write_onnx: Write, name: str
) -> None:
    path = (write_tflite if name.endswith("tflite") else write_onnx)(tmp_path / name)
    with runtime.open(path, runtime="openvino" if name == "b.onnx" else None) as session:
        first = session.run(_image(6, 6))
        kept = first.copy()
        session.run(1 - _image(6, 6))
        np.testing.assert_array_equal(first, kept)
    session.close()


def test_halo_and_scale_come_from_the_manifest(
    tmp_path: Path, write_onnx: Write, write_manifest: Callable[..., Any]
) -> None:
    path = write_onnx(tmp_path / "a.onnx")
    write_manifest(path, scale=2, halo=17)
    other = write_onnx(tmp_path / "unnamed.onnx")

    assert (runtime.open(path).halo, runtime.open(path).scale) == (17, 2)
    assert runtime.open(other).halo is None


@pytest.mark.parametrize("name", ["a.tflite", "a.onnx"])
def test_a_file_that_differs_from_its_manifest_is_refused(
    tmp_path: Path,
    write_tflite: Write,
    write_onnx: Write,
    write_manifest: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    path = (write_tflite if name.endswith("tflite") else write_onnx)(tmp_path / name)
    write_manifest(path, scale=2, halo=3)
    path.write_bytes(path.read_bytes() + b"\0" * 16)
    opened: list[Path] = []
    real = opening._engine

    def recorded(name: str, path: Path, threads: int) -> Engine:
        opened.append(path)
        return real(name, path, threads)

    monkeypatch.setattr(opening, "_engine", recorded)

    with pytest.raises(UserError, match=r"SHA-256 differs .*pass --no-verify"):
        runtime.open(path)
    # A damaged .tflite can abort the process inside LiteRT.
    assert opened == []
    if name == "a.tflite":  # which may end in padding
        assert runtime.open(path, verify=False).halo == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tflite", b"", "is empty, not a TFLite model"),
        ("a.tflite", b"\x08\x09\x12\x07xxxx", "is an ONNX model, not a TFLite model"),
        ("a.tflite", b"garbage garbage", "is no model .*not a TFLite model"),
        ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(100), "LiteRT .* cannot read it"),
        ("a.onnx", b"", "is empty, not an ONNX model"),
        ("a.onnx", b"\x1c\0\0\0TFL3" + bytes(100), "is a TFLite model, not an ONNX model"),
        ("a.onnx", b"PK\x03\x04" + bytes(100), "ZIP archive"),
        ("a.onnx", b"\x89PNG\r\n\x1a\n", "is a picture"),
        ("a.onnx", b"\x08\x09garbage", "ONNX Runtime cannot read it"),
        ("a.pth", b"x", r"unknown suffix '.pth'; expected .tflite, .onnx, .mlpackage"),
        ("a.h5", b"x", "unknown suffix"),
    ],
)
def test_what_is_no_artifact_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UserError, match=message) as caught:
        runtime.open(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_onnx_files_are_refused(
    tmp_path: Path, write_onnx: Write, share: float, engine: str
) -> None:
    path = write_onnx(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(UserError, match=r"cannot read it .*export it again"):
        runtime.open(path, runtime=engine)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_truncated_tflite_files_are_refused(
    tmp_path: Path, write_tflite: Write, share: float
) -> None:
    path = write_tflite(tmp_path / "a.tflite")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(UserError, match=r"cannot read it .*export it again"):
        runtime.open(path)


def test_requests_that_make_no_sense(tmp_path: Path, write_onnx: Write) -> None:
    path = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="no such file"):
        runtime.open(tmp_path / "b.onnx")
    with pytest.raises(UserError, match="opens with onnxruntime or openvino, not with 'litert'"):
        runtime.open(path, runtime="litert")
    for threads in (0, 100_000):  # the latter ended LiteRT with a segmentation fault
        with pytest.raises(UserError, match=rf"{threads} threads requested; choose 1 to"):
            runtime.open(path, threads=threads)
    (tmp_path / "c.onnx").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        runtime.open(tmp_path / "c.onnx")


def test_available_cores_counts_this_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert available_cores() == 6


# Core ML


_CORE_ML_SHAPES = {
    "fixed": (1, 3, 8, 12),
    "enumerated": coremltools.EnumeratedShapes(
        [(1, 3, 4, 4), (1, 3, 8, 12)], default=(1, 3, 8, 12)
    ),
    "range": (1, 3, coremltools.RangeDim(4, 64, 8), coremltools.RangeDim(4, 64, 12)),
}


def _core_ml_package(path: Path, flexibility: str, kind: Any = coremltools.TensorType) -> Path:
    """A package that doubles a picture's size by repeating pixels."""
    sizes = kind("image", shape=_CORE_ML_SHAPES[flexibility])
    free = (1, 3, get_new_symbol(), get_new_symbol())

    @Builder.program(
        input_specs=[Builder.TensorSpec((1, 3, 8, 12) if flexibility == "fixed" else free)]
    )
    def program(image):  # type: ignore[no-untyped-def]
        return Builder.upsample_nearest_neighbor(
            x=image, scale_factor_height=2, scale_factor_width=2, name="restored_image"
        )

    if kind is coremltools.ImageType:
        program.functions["main"].set_output_types([coremltools.ImageType()])
    coremltools.convert(program, inputs=[sizes], minimum_deployment_target=coremltools.target.iOS16,
                        convert_to="mlprogram").save(str(path))  # fmt: skip
    return path


class _Predicting(coremltools.models.MLModel):  # type: ignore[misc]
    """Core ML's own arithmetic exists on macOS only; its part is played by NumPy here."""

    def __init__(self, path: str) -> None:
        super().__init__(path, skip_model_load=True)

    def predict(self, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"restored_image": data["image"].repeat(2, axis=2).repeat(2, axis=3)}


def test_core_ml_is_refused_with_what_to_use_instead(tmp_path: Path) -> None:
    path = tmp_path / "a.mlpackage"
    path.mkdir()
    with pytest.raises(UserError, match=r"macOS and iOS only; open the .tflite or .onnx"):
        runtime.open(path)


@pytest.mark.parametrize("flexibility", ["fixed", "enumerated", "range"])
def test_core_ml_images_on_macos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flexibility: str
) -> None:
    path = _core_ml_package(tmp_path / "a.mlpackage", flexibility, coremltools.ImageType)

    class Predicting(_Predicting):
        def predict(self, data: dict[str, Any]) -> dict[str, Any]:
            assert data["image"].mode == "RGB"
            width, height = data["image"].size
            enlarged = data["image"].resize((2 * width, 2 * height), Image.Resampling.NEAREST)
            return {"restored_image": enlarged.convert("RGBA")}

    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(coremltools.models, "MLModel", Predicting)
    image = np.rint(_image(8, 12) * 255).astype(np.float32) / np.float32(255)
    with runtime.open(path) as session:
        assert session.fixed_size == (None if flexibility == "range" else (8, 12))
        restored = session.run(image)
    expected = image.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("flexibility", ["fixed", "enumerated", "range"])
def test_core_ml_on_macos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flexibility: str
) -> None:
    path = _core_ml_package(tmp_path / "a.mlpackage", flexibility)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(coremltools.models, "MLModel", _Predicting)

    with runtime.open(path) as session:
        restored = session.run(_image(8, 12))

    assert session.runtime_name == "Core ML (macOS 15.1, ALL)"
    assert (session.scale, session.fixed_size) == (2, None if flexibility == "range" else (8, 12))
    np.testing.assert_array_equal(restored, _image(8, 12).repeat(2, axis=0).repeat(2, axis=1))


def test_damaged_core_ml_package_and_missing_coremltools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mlpackage"
    path.mkdir()
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UserError, match="Core ML cannot read it"):
        runtime.open(path)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match="pip install coremltools"):
        runtime.open(path)


# Imports


def _modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    root = Path(runtime.__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_runtime_loads_nothing_heavy() -> None:
    loaded = _modules_after("import runtime")
    assert not loaded & {"numpy", "PIL", "tqdm", "onnxruntime", "ai_edge_litert", "torch"}


@pytest.mark.parametrize("name", ["a.tflite", "a.onnx"])
def test_a_whole_restoration_needs_no_training_or_export_library(
    tmp_path: Path, write_tflite: Write, write_onnx: Write, name: str
) -> None:
    path = (write_tflite if name.endswith("tflite") else write_onnx)(tmp_path / name)
    loaded = _modules_after(f"""
import numpy, runtime
from runtime.pictures.files import PictureFile, write_picture
from runtime.restoration import restore_file
write_picture({str(tmp_path / "in.png")!r}, PictureFile(numpy.zeros((9, 7, 3), numpy.uint8)))
with runtime.open({str(path)!r}) as session:
    restore_file(session, {str(tmp_path / "in.png")!r}, {str(tmp_path / "out.png")!r})
""")

    assert (tmp_path / "out.png").exists()
    forbidden = {"torch", "onnx", "onnx_ir", "tensorflow", "coremltools", "scipy", "openvino"}
    assert not loaded & forbidden
    unused = "onnxruntime" if name == "a.tflite" else "ai_edge_litert"
    assert unused not in loaded
