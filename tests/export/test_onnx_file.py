"""ONNX files as sources: of torch's two exporters, of our own writer, and bad ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture.torch_capture import capture
from export.errors import UnsupportedOperators
from export.execution import execute
from export.graph_module import GraphModule
from export.lowering import lower
from export.profiles import PROFILES
from export.sources.finding import find_network
from export.sources.foreign import Foreign
from export.sources.onnx_file import read_onnx
from export.sources.source import Source
from export.writers.onnx_writer import write_onnx
from runtime.errors import UserError

Picture = Callable[[int, int], NDArray[np.float32]]


class Enlarging(nn.Module):
    """A network of the operators that most of its kind have."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.slopes = nn.PReLU(8)
        self.groups = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.tail = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.slopes(self.norm(self.head(image - 0.5)))
        x = torch.cat([F.leaky_relu(self.groups(x), 0.1), F.relu6(x)], 1)
        x = x * x.mean((2, 3), keepdim=True).sigmoid()
        enlarged = F.interpolate(image, scale_factor=2, mode="nearest")
        return (F.pixel_shuffle(self.tail(x), 2) + enlarged).clamp(0, 1)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    module = Enlarging()
    for values in (module.norm.running_mean, module.norm.running_var, module.slopes.weight):
        nn.init.uniform_(values, 0.2, 0.8)
    return module.eval()


def _exported(
    module: nn.Module, path: Path, *, dynamo: bool, free: bool, half: bool = False
) -> Path:
    """Write a file with one of torch's exporters."""
    image = torch.zeros(1, 3, 12, 10, dtype=torch.float16 if half else torch.float32)
    sides: dict[str, Any] = {}
    if free and dynamo:
        dims = {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
        sides = {"dynamic_shapes": (dims,)}
    elif free:
        sides = {"dynamic_axes": {"input": {0: "batch", 2: "height", 3: "width"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            copy.deepcopy(module).half() if half else module,
            (image,),
            path,
            dynamo=dynamo,
            opset_version=18 if dynamo else 13,
            input_names=["input"],
            verbose=False,
            **sides,
        )
    return path


def _restored(found: Foreign, image: NDArray[np.float32]) -> Tensor:
    with torch.no_grad():
        restored: Tensor = found.at_scale(found.chosen_scale(None))(torch.from_numpy(image))
    return restored


@pytest.mark.parametrize("free", [True, False], ids=["free", "fixed"])
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "script"])
def test_files_of_both_exporters_of_torch_are_the_network(
    dynamo: bool, free: bool, network: nn.Module, tmp_path: Path, picture: Picture
) -> None:
    found = read_onnx(_exported(network, tmp_path / "Their Net_x2.onnx", dynamo=dynamo, free=free))
    assert (found.name, found.chosen_scale(None)) == ("their-net", 2)
    for size in ((7, 5), (1, 1)):  # A fixed file is read as a free one.
        image = picture(*size)
        with torch.no_grad():
            expected = network(torch.from_numpy(image))
        torch.testing.assert_close(_restored(found, image), expected, atol=2e-6, rtol=1e-5)


def test_the_operators_are_those_that_are_captured_from_torch(
    network: nn.Module, tmp_path: Path
) -> None:
    found = read_onnx(_exported(network, tmp_path / "net.onnx", dynamo=False, free=True))
    assert Source.of(found, 2).graph.operators() == capture(network).operators()


def test_a_float16_file_is_read_in_float32(
    network: nn.Module, tmp_path: Path, picture: Picture
) -> None:
    path = _exported(network, tmp_path / "net.onnx", dynamo=False, free=True, half=True)
    found, image = read_onnx(path), picture(7, 5)
    graph = Source.of(found, 2).graph
    assert all(array.dtype == np.float32 for array in graph.constants.values())
    with torch.no_grad():
        expected = network(torch.from_numpy(image))
    torch.testing.assert_close(_restored(found, image), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("model", ["carn", "carn-m"])
def test_our_own_files_come_back_as_they_went(
    model: str,
    precision: Any,
    captured: Callable[[str, int], Any],
    tmp_path: Path,
    picture: Picture,
) -> None:
    graph = lower(captured(model, 2).graph, PROFILES["ort-cpu"].rewrites(precision))
    path = tmp_path / "net.onnx"
    write_onnx(graph, path, precision)
    read = Source.of(read_onnx(path), 2).graph
    assert read.operators() == graph.operators()
    image = torch.from_numpy(picture(9, 7))
    tolerance = 1e-5 if precision == "float32" else 2e-3
    torch.testing.assert_close(execute(read, image), execute(graph, image), atol=tolerance, rtol=0)


def test_weights_beside_the_file_belong_to_it(network: nn.Module, tmp_path: Path) -> None:
    path = _exported(network, tmp_path / "net.onnx", dynamo=True, free=True)
    data = path.with_name("net.onnx.data")
    first = read_onnx(path)
    assert first.provenance["source"]["external_data"] == ["net.onnx.data"]
    stored = bytearray(data.read_bytes())
    stored[:4] = np.float32(0.25).tobytes()
    data.write_bytes(stored)
    assert read_onnx(path).sha256 != first.sha256
    data.unlink()
    with pytest.raises(UserError, match=r"its weights lie in the file net\.onnx\.data, which is"):
        read_onnx(path)


def test_the_manifest_learns_where_a_file_comes_from(network: nn.Module, tmp_path: Path) -> None:
    path = _exported(network, tmp_path / "net.onnx", dynamo=False, free=True)
    found = find_network(str(path))
    source = found.provenance["source"]
    assert (source["file"], source["opset"]) == ("net.onnx", 13)
    assert source["producer"].startswith("pytorch ")
    assert source["sha256"] == found.sha256
    with pytest.raises(UserError, match="restores ×2, not ×4; leave --scale out"):
        found.chosen_scale(4)


def test_a_graph_as_a_module_is_exact_in_double_precision(
    network: nn.Module, picture: Picture
) -> None:
    module = GraphModule(capture(network))
    assert sum(one.numel() for one in module.parameters()) == sum(
        array.size for array in module.graph.constants.values()
    )
    image = torch.from_numpy(picture(6, 8)).double()
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(image)
        expected = copy.deepcopy(network).double()(image)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, expected, atol=1e-6, rtol=0)
    assert next(module.parameters()).dtype == torch.float32  # The copy's are its own.


def _of_levels(end: str) -> onnx.ModelProto:
    """Return a model from levels of 8 bits to such, by way of ``end`` from real numbers."""
    text = f"""<ir_version: 8, opset_import: ["": 13]>
    net (uint8[1,H,W,3] x) => (uint8[1,T,B,3] y) {{
        f = Cast <to=1> (x) t = Transpose <perm=[0,3,1,2]> (f)
        s = Constant <value = float {{0.00392156862745098}}> () d = Mul(t, s)
        c = Conv <pads=[1,1,1,1]> (d, w) e = Mul(c, n)
        low = Constant <value = float {{0.0}}> () high = Constant <value = float {{255.0}}> ()
        k = Clip(e, low, high) {end} u = Transpose <perm=[0,2,3,1]> (r) y = Cast <to=2> (u)
    }}"""
    model = onnx.parser.parse_model(text)
    weights = np.random.default_rng(3).random((3, 3, 3, 3), np.float32) / 20
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "n"))
    return model


def test_a_file_of_whole_levels_becomes_one_of_real_numbers(
    tmp_path: Path, picture: Picture
) -> None:
    path, image = tmp_path / "net.onnx", picture(9, 6)
    onnx.save(_of_levels("r = Round(k)"), path)
    levels = np.rint(image * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": levels})
    restored = _restored(read_onnx(path), image).numpy() * 255
    np.testing.assert_allclose(
        restored, expected.transpose(0, 3, 1, 2).astype(np.float32), atol=0.5001, rtol=0
    )


@pytest.mark.parametrize("baked", [False, True], ids=["declared", "written in it"])
def test_a_file_of_a_large_fixed_size_is_tried_at_a_small_one_where_it_can(
    baked: bool, tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffle = 'y = DepthToSpace <blocksize=2, mode="CRD"> (c)'
    if baked:
        shuffle = "r = Reshape(c, six) t = Transpose <perm=[0,1,4,2,5,3]> (r) y = Reshape(t, four)"
    text = f"""<ir_version: 8, opset_import: ["": 13]>
    net (float[1,3,160,128] x) => (float[1,3,320,256] y)
    {{ c = Conv <pads=[1,1,1,1]> (x, w) {shuffle} }}"""
    model = onnx.parser.parse_model(text)
    arrays = {
        "w": np.random.default_rng(3).random((12, 3, 3, 3), np.float32) / 20,
        "six": np.array([1, 3, 2, 2, 160, 128], np.int64),
        "four": np.array([1, 3, 320, 256], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    path, sizes = tmp_path / "net.onnx", []
    onnx.save(model, path)

    def counted(graph: Any, image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[2:]))
        return execute(graph, image)

    monkeypatch.setattr("export.sources.onnx_trial.execute", counted)
    found = read_onnx(path)
    assert sizes == ([(160, 128)] if baked else [(17, 22), (24, 40)])
    expected = F.conv2d(torch.from_numpy(picture(6, 7)), torch.from_numpy(arrays["w"]), padding=1)
    torch.testing.assert_close(_restored(found, picture(6, 7)), F.pixel_shuffle(expected, 2))


# Bad files.


def _value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    *nodes: onnx.NodeProto,
    image: onnx.ValueInfoProto | None = None,
    more_inputs: int = 0,
    outputs: int = 1,
    opset: int = 17,
    **constants: NDArray[Any],
) -> onnx.ModelProto:
    """Return a model from ``x`` to ``y`` (or y0, y1, …), by default one convolution."""
    chosen = nodes or (helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4),)
    weights = {"w": np.full((3, 3, 3, 3), 0.05, np.float32), **constants}
    names = ["y"] if outputs == 1 else [f"y{index}" for index in range(outputs)]
    sides = [1, 3, "height", "width"]
    graph = helper.make_graph(
        chosen,
        "net",
        [image or _value("x", sides), *(_value(f"x{n}", sides) for n in range(more_inputs))],
        [_value(name, [None] * 4) for name in names],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _refusal(tmp_path: Path, content: onnx.ModelProto | bytes) -> str:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(UserError) as caught:
        find_network(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert not isinstance(caught.value, UnsupportedOperators)
    assert message.startswith(str(path))
    assert list(tmp_path.iterdir()) == [path]
    return message.removeprefix(f"{path}: ")


def _node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], f"the {op.lower()}", **attributes)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = _model().SerializeToString()
    assert "damaged; copy it again" in _refusal(tmp_path, whole[: len(whole) // 2])
    assert "damaged; copy it again" in _refusal(tmp_path, b"<html>404</html>")
    assert _refusal(tmp_path, b"").startswith("holds no network")
    with pytest.raises(UserError, match=r"missing\.onnx: no such file"):
        find_network(str(tmp_path / "missing.onnx"))


def test_a_file_as_large_as_no_phone_holds_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse
    with pytest.raises(UserError, match=r"3\.2 GB with its weights; files of networks that run"):
        find_network(str(path))


def test_files_that_are_no_network_of_one_picture_are_refused(tmp_path: Path) -> None:
    five = [_node("Relu", "x", output=f"y{index}") for index in range(5)]
    assert "has 5 outputs (y0, y1, y2, y3, y4)" in _refusal(tmp_path, _model(*five, outputs=5))
    two = _model(_node("Add", "x", "x0"), more_inputs=1)
    assert "has 2 inputs (x, x0); expected a network from one" in _refusal(tmp_path, two)
    pairs = _model(_node("Relu", "x"), image=_value("x", [1, 2, "h", "w"]))
    assert "pictures of 2 channels; expected RGB, three, or luma, one" in _refusal(tmp_path, pairs)
    last = _model(_node("Relu", "x"), image=_value("x", [1, "h", "w", 4]))
    assert "takes pictures of 4 channels; expected RGB, three" in _refusal(tmp_path, last)
    wide = _model(_node("Relu", "x"), image=_value("x", [1, 3, "h", "w"], TensorProto.INT32))
    assert "takes int32 values; expected float32" in _refusal(tmp_path, wide)
    cut = _refusal(tmp_path, _of_levels("r = Identity(k)"))
    assert cut.endswith("at most 0.002 is allowed, what rounding takes away")
    batch = _model(image=_value("x", [8, 3, "h", "w"]))
    assert "takes 8 pictures at once; export it for one" in _refusal(tmp_path, batch)
    flat = _model(_node("Relu", "x"), image=_value("x", [3, "h", "w"]))
    assert "'x' has 3 axes; expected four" in _refusal(tmp_path, flat)


def test_operators_of_a_kind_that_is_not_read_are_refused(tmp_path: Path) -> None:
    custom = _model(_node("Magic", "x", domain="com.example"))
    assert "not ONNX's own: com.example.Magic in the magic; export" in _refusal(tmp_path, custom)
    old = _model(opset=11)
    assert "written for opset 11 of ONNX; export the network again" in _refusal(tmp_path, old)
    quantized = _model(
        _node("QuantizeLinear", "x", "scale", "zero", output="q"),
        _node("DequantizeLinear", "q", "scale", "zero"),
        scale=np.float32(1 / 255),
        zero=np.uint8(0),
    )
    assert "already quantized to integers; give the float file" in _refusal(tmp_path, quantized)
    unknown = _model(_node("Rellu", "x"))
    assert "not a valid ONNX file: No Op registered for Rellu" in _refusal(tmp_path, unknown)


def test_all_operators_of_attention_are_listed_at_once(tmp_path: Path) -> None:
    shape = np.array([1, 3, -1], np.int64)
    model = _model(
        _node("Reshape", "x", "shape", output="flat"),
        _node("Transpose", "flat", output="keys", perm=[0, 2, 1]),
        _node("MatMul", "keys", "flat", output="scores"),
        _node("Softmax", "scores", output="weights", axis=-1),
        _node("MatMul", "flat", "weights", output="mixed"),
        _node("Shape", "x", output="sizes"),
        _node("Reshape", "mixed", "sizes"),
        shape=shape,
    )
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(UnsupportedOperators) as caught:
        find_network(str(tmp_path / "bad.onnx"))
    assert {("the matmul", "MatMul"), ("the softmax", "Softmax")} <= set(caught.value.operators)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = np.full((3, 3, 3, 3), 0.05, np.float32)
    weights[1, 1, 1, 1] = np.nan
    assert "w holds values that are not finite numbers" in _refusal(tmp_path, _model(w=weights))


def test_a_network_that_cuts_what_does_not_fit_takes_multiples(
    tmp_path: Path, picture: Picture
) -> None:
    # Cuts rows off until their number is a multiple of four.
    model = _model(
        _node("Shape", "x", output="sizes", start=2, end=3),
        _node("Mod", "sizes", "four", output="rest"),
        _node("Sub", "sizes", "rest", output="fitting"),
        _node("Slice", "x", "zero", "fitting", "axis", output="cut"),
        _node("Conv", "cut", "w", pads=[1] * 4),
        four=np.array([4], np.int64),
        zero=np.array([0], np.int64),
        axis=np.array([2], np.int64),
    )
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    found, image = read_onnx(path), picture(12, 8)
    assert Source.of(found, 1).graph.sides.multiple == 4
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": image})
    np.testing.assert_allclose(_restored(found, image).numpy(), expected, atol=1e-6, rtol=0)


def test_arithmetic_on_the_size_that_no_graph_has_is_found_out(tmp_path: Path) -> None:
    model = _model(
        _node("Shape", "x", output="sizes", start=2, end=3),
        _node("Cast", "sizes", output="height", to=TensorProto.FLOAT),
        _node("Mul", "x", "height"),
    )
    assert "differs from ONNX Runtime's result by" in _refusal(tmp_path, model)


def test_a_wrong_reading_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "export.sources.onnx_file.read_model", lambda model: capture(nn.Conv2d(3, 3, 1))
    )
    assert "differs from ONNX Runtime's result by" in _refusal(tmp_path, _model())


def test_the_proof_runs_the_file_itself(tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(_model(), path)
    image = picture(8, 9)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": image})
    restored = _restored(read_onnx(path), image).numpy()
    np.testing.assert_allclose(restored, expected, atol=1e-6, rtol=0)
