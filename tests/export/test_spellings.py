"""Spellings of exporters in ONNX files: read into few operators, and computed as ONNX Runtime does.

Each file is written by hand in ONNX's text format, as PyTorch's and TensorFlow's converters write
them. ONNX Runtime runs the file as it is; the graph must restore the same at other sizes, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from export.execution import execute
from export.graph import Graph
from export.sources.onnx_file import read_onnx

Array = NDArray[np.generic]
Picture = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Written:
    """A file in ONNX's text format, from ``x`` to ``y``, and the operators it is read into.

    Attributes:
        body: Its nodes.
        operators: How often each operator occurs in the graph.
        constants: Arrays that the nodes read.
        image: Shape of ``x`` in pixels, letters where it is free.
        opset: Version of ONNX's operators.
    """

    body: str
    operators: Mapping[str, int]
    constants: Mapping[str, Array] = field(default_factory=dict)
    image: str = "1,3,H,W"
    opset: int = 13

    def save(self, path: Path) -> Path:
        """Write the file."""
        text = (
            f'<ir_version: 8, opset_import: ["": {self.opset}]> '
            f"net (float[{self.image}] x) => (float[N,D,T,B] y) {{ {self.body} }}"
        )
        model = onnx.parser.parse_model(text)
        for name, array in self.constants.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        onnx.save(model, path)
        return path


def _random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(0, 0.3, shape).astype(np.float32)


def _integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _convolution(outputs: int = 12, inputs: int = 3, size: int = 3) -> dict[str, Array]:
    return {"w": _random(outputs, inputs, size, size), "b": _random(outputs)}


_NORM = {
    **{"g": _random(3) + 1, "s": _random(3), "m": _random(3)},
    "v": np.abs(_random(3)) + np.float32(0.5),
}
_SAME = "Conv <pads=[1,1,1,1], kernel_shape=[3,3]>"

_NUMBERS = {
    "zero": np.float32(0),
    "six": np.float32(6),
    "most": np.finfo(np.float32).max,
}

# PyTorch's order of channels for a free size: the extents are computed from the picture's.
_PIXEL_SHUFFLE = f"""
    c = {_SAME}(x, w, b) s = Shape(c)
    h = Gather(s, i2) wd = Gather(s, i3) h2 = Mul(h, i2) w2 = Mul(wd, i2)
    hu = Unsqueeze(h, a0) wu = Unsqueeze(wd, a0) h2u = Unsqueeze(h2, a0) w2u = Unsqueeze(w2, a0)
    six = Concat <axis=0> (one, three, two, two, hu, wu)
    r = Reshape(c, six) t = Transpose <perm=[0,1,4,2,5,3]> (r)
    four = Concat <axis=0> (one, three, h2u, w2u)
    y = Reshape(t, four)
"""
_INDICES = {
    **{"i2": np.int64(2), "i3": np.int64(3), "a0": _integers(0)},
    **{"one": _integers(1), "two": _integers(2), "three": _integers(3)},
}

_CUTS = {
    **{"zero": _integers(0), "one": _integers(1), "three": _integers(3), "four": _integers(4)},
    **{"back": _integers(-1), "most": _integers(2**63 - 1), "least": _integers(-(2**63))},
}

PLANAR: Mapping[str, Written] = {
    "constants in nodes": Written(
        f"""k = Constant <value = float {{2.0}}> () s = Mul(x, k) c = {_SAME}(s, w, b)
        i = Identity(c) d = Dropout(i) y = Cast <to=1> (d)""",
        {"Conv": 1, "Mul": 1},
        _convolution(3),
    ),
    "picture in levels of its own": Written(
        f"a = Sub(x, mean) s = Div(a, deviation) y = {_SAME}(s, w, b)",
        {"Conv": 1, "Mul": 1, "Sub": 1},
        {
            **_convolution(3),
            "mean": np.float32([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1),
            "deviation": np.float32([0.2, 0.3, 0.4]).reshape(3, 1, 1),
        },
    ),
    "Clip without an upper bound": Written(
        f"c = {_SAME}(x, w, b) y = Clip(c, zero)",
        {"Conv": 1, "Relu": 1},
        {**_convolution(3), **_NUMBERS},
    ),
    "Clip up to the largest float": Written(
        f"c = {_SAME}(x, w, b) y = Clip(c, zero, most)",
        {"Conv": 1, "Relu": 1},
        {**_convolution(3), **_NUMBERS},
    ),
    "Relu6 as Min and Max": Written(
        f"c = {_SAME}(x, w, b) m = Min(c, six) y = Max(m, zero)",
        {"Clip": 1, "Conv": 1},
        {**_convolution(3), **_NUMBERS},
    ),
    "Neg and Sum": Written(
        f"c = {_SAME}(x, w, b) n = Neg(c) y = Sum(n, x, c)",
        {"Add": 2, "Conv": 1, "Mul": 1},
        _convolution(3),
    ),
    "the largest of three, and of one": Written(
        f"c = {_SAME}(x, w, b) m = Max(c, x, six) y = Min(m)",
        {"Conv": 1, "Max": 2},
        {**_convolution(3), **_NUMBERS},
    ),
    "the HardSigmoid of Keras": Written(
        f"c = {_SAME}(x, w, b) h = HardSigmoid <alpha=0.2> (c) y = Mul(c, h)",
        {"Add": 1, "Clip": 1, "Conv": 1, "Mul": 2},
        _convolution(3),
    ),
    "normalization behind a convolution": Written(
        f"c = {_SAME}(x, w, b) n = BatchNormalization <epsilon=0.01> (c, g, s, m, v) y = Relu(n)",
        {"Conv": 1, "Relu": 1},
        {**_convolution(3), **_NORM},
    ),
    "normalization of the picture": Written(
        f"n = BatchNormalization(x, g, s, m, v) y = {_SAME}(n, w, b)",
        {"Add": 1, "Conv": 1, "Mul": 1},
        {**_convolution(3), **_NORM},
    ),
    "padding before a convolution": Written(
        "p = Pad(x, pads) y = Conv <kernel_shape=[3,3]> (p, w, b)",
        {"Conv": 1},
        {**_convolution(3), "pads": _integers(0, 0, 1, 1, 0, 0, 1, 1)},
    ),
    "channels split in equal parts": Written(
        f"c = {_SAME}(x, w, b) l, r = Split <axis=1> (c) y = Mul(l, r)",
        {"Conv": 1, "Mul": 1, "Split": 1},
        _convolution(6),
    ),
    "halves of the channels by slices": Written(
        f"""c = {_SAME}(x, w, b) l = Slice(c, one, three, one) r = Slice(c, three, most, one)
        m = Mul(l, r) k = Concat <axis=1> (m, c) y = Conv(k, w2)""",
        {"Concat": 1, "Conv": 2, "Mul": 1, "Split": 1},
        {**_convolution(5), **_CUTS, "w2": _random(3, 7, 1, 1)},
    ),
    "slices that overlap": Written(
        f"""c = {_SAME}(x, w, b) l = Slice(c, zero, three, one) r = Slice(c, one, four, one)
        y = Mul(l, r)""",
        {"Conv": 1, "Mul": 1, "Split": 2},
        {**_convolution(5), **_CUTS},
    ),
    "blue, green, red": Written(
        f"""f = Slice(x, most, least, one, back) c = {_SAME}(f, w, b)
        y = Gather <axis=1> (c, order)""",
        {"Conv": 1},
        {**_convolution(3), **_CUTS, "order": _integers(2, 1, -3)},
    ),
    "channels assigned in place": Written(
        f"c = {_SAME}(x, w, b) r = Relu(x) s = ScatterND(c, places, r) y = Conv(s, w2)",
        {"Concat": 1, "Conv": 2, "Relu": 1, "Split": 1},
        {
            **{**_convolution(5), "w2": _random(3, 5, 1, 1)},
            "places": np.stack(list(np.indices((1, 5, 12, 8))), axis=-1)[:, 1:4],
        },
        image="1,3,12,8",
    ),
    "channels repeated": Written(
        f"""u = Unsqueeze(x, two) t = Tile(u, times) r = Reshape(t, shape)
        c = {_SAME}(x, w, b) y = Add(r, c)""",
        {"Add": 1, "Conv": 2},
        {
            **{**_convolution(6), "two": _integers(2), "times": _integers(1, 1, 2, 1, 1)},
            "shape": _integers(1, 6, 12, 8),
        },
        image="1,3,12,8",
    ),
    "gate by a mean with its axes as attributes": Written(
        f"c = {_SAME}(x, w, b) p = ReduceMean <axes=[2,3]> (c) g = Sigmoid(p) y = Mul(c, g)",
        {"Conv": 1, "GlobalAveragePool": 1, "Mul": 1, "Sigmoid": 1},
        _convolution(3),
    ),
    "gate by a mean that drops its axes": Written(
        f"""c = {_SAME}(x, w, b) p = ReduceMean <axes=[2,3], keepdims=0> (c)
        r = Reshape(p, shape) g = Sigmoid(r) y = Mul(g, c)""",
        {"Conv": 1, "GlobalAveragePool": 1, "Mul": 1, "Sigmoid": 1},
        {**_convolution(3), "shape": _integers(-1, 3, 1, 1)},
    ),
    "gate by maxima, one without its axis": Written(
        f"""c = {_SAME}(x, w, b) p = GlobalMaxPool(c) m = Mul(c, p)
        l = ReduceMax <axes=[1], keepdims=0> (m) u = Unsqueeze(l, axis) g = Sigmoid(u)
        y = Mul(m, g)""",
        {"ChannelMax": 1, "Conv": 1, "GlobalMaxPool": 1, "Mul": 2, "Sigmoid": 1},
        {**_convolution(3), "axis": _integers(1)},
    ),
    "gate of fully connected layers": Written(
        f"""c = {_SAME}(x, w, b) p = GlobalAveragePool(c) f = Flatten(p)
        h = Gemm <transB=1, alpha=2.0> (f, down, shift) r = Relu(h) m = MatMul(r, up)
        a = Add(lift, m) g = Sigmoid(a) u = Unsqueeze(g, axes) y = Mul(c, u)""",
        {"Add": 1, "Conv": 3, "GlobalAveragePool": 1, "Mul": 1, "Relu": 1, "Sigmoid": 1},
        {
            **{**_convolution(3), "down": _random(2, 3), "shift": _random(2), "up": _random(2, 3)},
            **{"lift": _random(3), "axes": _integers(2, 3)},
        },
    ),
    "shuffle of pixels": Written(
        _PIXEL_SHUFFLE, {"Conv": 1, "DepthToSpace": 1}, {**_convolution(), **_INDICES}
    ),
    "enlarging to a computed size": Written(
        f"""c = {_SAME}(x, w, b) s = Shape(x) l = Slice(s, two, four) d = Mul(l, two)
        f = Slice(s, zero, two) z = Concat <axis=0> (f, d)
        y = Resize <mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric"> (c, , , z)""",
        {"Conv": 1, "Resize": 1},
        {**_convolution(3), "zero": _integers(0), "two": _integers(2), "four": _integers(4)},
    ),
    "enlarging between pixel centres": Written(
        'y = Resize <mode="nearest"> (x, , factors)',
        {"Resize": 1},
        {"factors": np.float32([1, 1, 3, 3])},
    ),
}


def _restored(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path))
    (restored,) = session.run(None, {"x": image})
    found: NDArray[np.float32] = restored
    return found


def _graph_of(path: Path) -> Graph:
    found = read_onnx(path)
    graph: Graph = found.at_scale(found.chosen_scale(None)).graph
    return graph


@pytest.mark.parametrize("name", PLANAR)
def test_what_exporters_write_is_read(name: str, tmp_path: Path, picture: Picture) -> None:
    written = PLANAR[name]
    path = written.save(tmp_path / "net.onnx")
    graph = _graph_of(path)
    assert graph.operators() == written.operators
    for size in [(12, 8), (7, 10)][: 2 if "H" in written.image else 1]:
        image = picture(*size)
        found = execute(graph, torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(found, _restored(path, image), atol=1e-5, rtol=0)


# As tf2onnx and Keras write: N × H × W × C, transposes around what needs planes.
_IN, _OUT = "Transpose <perm=[0,3,1,2]>", "Transpose <perm=[0,2,3,1]>"

INTERLEAVED: Mapping[str, Written] = {
    "transposes at the ends": Written(
        f"t = {_IN}(x) c = {_SAME}(t, w, b) y = {_OUT}(c)", {"Conv": 1}, _convolution(3)
    ),
    "rows and columns repeated, as Keras enlarges": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w, b) d = {_OUT}(c) s = Shape(d)
        h = Slice(s, one, two) h2 = Mul(h, two) v = Slice(s, two, three) v2 = Mul(v, two)
        tall = Concat <axis=0> (one, h2, v, three) large = Concat <axis=0> (one, h2, v2, three)
        e = Unsqueeze(d, two) f = Tile(e, rows) g = Reshape(f, tall)
        i = Unsqueeze(g, three) j = Tile(i, columns) y = Reshape(j, large)""",
        {"Conv": 1, "Resize": 1},
        {
            **{**_convolution(3), "one": _integers(1), "two": _integers(2), "three": _integers(3)},
            **{"rows": _integers(1, 1, 2, 1, 1), "columns": _integers(1, 1, 1, 2, 1)},
        },
    ),
    "transposed, cut by numbers that a constant is split into": Written(
        f"""t = {_IN}(x) c = ConvTranspose <strides=[2,2]> (t, w, b)
        one, zero = Split <axis=0> (both) k = Concat <axis=0> (one, one)
        e = Sub(zero, k) d = Slice(c, k, e, axes) y = {_OUT}(d)""",
        {"ConvTranspose": 1, "Pad": 1},
        {
            **{"w": _random(3, 3, 4, 4), "b": _random(3), "both": _integers(1, 0)},
            "axes": _integers(2, 3),
        },
    ),
    "transposes around every convolution": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w) u = {_OUT}(c) v = Add(u, shift) r = Relu(v)
        p = PRelu(v, slope) q = Concat <axis=3> (r, p, x)
        t2 = {_IN}(q) c2 = {_SAME}(t2, w2, b2) u2 = {_OUT}(c2) y = Add(x, u2)""",
        {"Add": 2, "Concat": 1, "Conv": 2, "PRelu": 1, "Relu": 1},
        {
            **{"w": _random(3, 3, 3, 3), "shift": _random(3), "slope": _random(1, 1, 3)},
            **{"w2": _random(3, 9, 3, 3), "b2": _random(3)},
        },
    ),
    "preprocessing per channel": Written(
        f"s = Sub(x, mean) m = Mul(s, two) t = {_IN}(m) c = {_SAME}(t, w, b) y = {_OUT}(c)",
        {"Conv": 1, "Mul": 1, "Sub": 1},
        {**_convolution(3), "mean": np.float32([0.4, 0.5, 0.6]), "two": np.float32(2)},
    ),
    "padding before a convolution": Written(
        f"""p = Pad(x, pads) t = {_IN}(p) c = Conv <kernel_shape=[3,3]> (t, w, b)
        y = {_OUT}(c)""",
        {"Conv": 1},
        {**_convolution(3), "pads": _integers(0, 1, 1, 0, 0, 1, 1, 0)},
    ),
    "gate by a mean": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w, b) u = {_OUT}(c)
        m = ReduceMean <axes=[1,2], keepdims=0> (u) r = Reshape(m, shape) g = Sigmoid(r)
        y = Mul(u, g)""",
        {"Conv": 1, "GlobalAveragePool": 1, "Mul": 1, "Sigmoid": 1},
        {**_convolution(3), "shape": _integers(-1, 1, 1, 3)},
    ),
    "gate of fully connected layers": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w, b) u = {_OUT}(c)
        m = ReduceMean <axes=[1,2], keepdims=0> (u) r = Reshape(m, shape) d = MatMul(r, dense)
        a = Add(d, lift) g = Sigmoid(a) k = Reshape(g, whole) y = Mul(u, k)""",
        {"Add": 1, "Conv": 2, "GlobalAveragePool": 1, "Mul": 1, "Sigmoid": 1},
        {
            **{**_convolution(3), "dense": _random(3, 3), "lift": _random(3)},
            **{"shape": _integers(-1, 3), "whole": _integers(1, 1, 1, 3)},
        },
    ),
    "layers of every pixel": Written(
        """m = MatMul(x, up) a = Add(m, lift) r = Relu(a) n = MatMul(r, down) y = Add(n, x)""",
        {"Add": 2, "Conv": 2, "Relu": 1},
        {"up": _random(3, 7), "lift": _random(7), "down": _random(7, 3)},
    ),
    "normalization of every pixel": Written(
        "n = LayerNormalization <epsilon=0.01> (x, scale, lift) y = MatMul(n, mix)",
        {"ChannelNorm": 1, "Conv": 1},
        {"scale": _random(3) + 1, "lift": _random(3), "mix": _random(3, 3)},
        opset=17,
    ),
    "shuffle of pixels as an operator": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w, b) d = DepthToSpace <blocksize=2, mode="DCR"> (c)
        y = {_OUT}(d)""",
        {"Conv": 1, "DepthToSpace": 1},
        _convolution(),
    ),
    "halves of the channels by slices": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w, b) u = {_OUT}(c) l = Slice(u, zero, three, last)
        r = Slice(u, three, most, last) y = Mul(l, r)""",
        {"Conv": 1, "Mul": 1, "Split": 1},
        {**_convolution(6), **_CUTS, "last": _integers(-1)},
    ),
    "halves of the channels": Written(
        f"""t = {_IN}(x) c = {_SAME}(t, w, b) u = {_OUT}(c) l, r = Split <axis=-1> (u)
        y = Mul(l, r)""",
        {"Conv": 1, "Mul": 1, "Split": 1},
        _convolution(6),
    ),
}


@pytest.mark.parametrize("name", INTERLEAVED)
def test_channels_last_become_planes(name: str, tmp_path: Path, picture: Picture) -> None:
    written = dataclasses.replace(INTERLEAVED[name], image="1,H,W,3")
    path = written.save(tmp_path / "net.onnx")
    graph = _graph_of(path)
    assert graph.operators() == written.operators
    for size in ((7, 10), (12, 8)):
        image = picture(*size)
        found = execute(graph, torch.from_numpy(image)).numpy()
        expected = _restored(path, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5, rtol=0)


# TensorFlow's depth_to_space of channels last, spelled in Reshape and Transpose at a fixed size.
_TENSORFLOW_SHUFFLE = f"""
    t = {_IN}(x) c = {_SAME}(t, w, b) u = {_OUT}(c)
    r = Reshape(u, split) s = Transpose <perm=[0,1,3,2,4,5]> (r) y = Reshape(s, merged)
"""


def test_a_shuffle_of_tensorflow_at_a_fixed_size_becomes_free(
    tmp_path: Path, picture: Picture
) -> None:
    shapes = {"split": _integers(1, 6, 5, 2, 2, 3), "merged": _integers(1, 12, 10, 3)}
    operators = {"Conv": 1, "DepthToSpace": 1}
    written = Written(_TENSORFLOW_SHUFFLE, operators, {**_convolution(), **shapes}, "1,6,5,3")
    graph = _graph_of(written.save(tmp_path / "net.onnx"))
    assert graph.operators() == operators
    assert [node.attributes["mode"] for node in graph.nodes if node.op == "DepthToSpace"] == ["DCR"]
    # At the file's size ONNX Runtime has agreed; at another one TensorFlow's definition does.
    image = torch.from_numpy(picture(4, 7))
    convolved = torch.nn.functional.conv2d(
        image, *map(torch.from_numpy, _convolution().values()), padding=1
    )
    blocks = convolved.reshape(1, 2, 2, 3, 4, 7).permute(0, 3, 4, 1, 5, 2).reshape(1, 3, 8, 14)
    torch.testing.assert_close(execute(graph, image), blocks)
