"""A session converts pictures for any engine: layouts, half floats, 8 bits and pooled vectors.

The engine here is NumPy: it repeats pixels, so that what arrives and what comes back is known.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.engine import Engine
from runtime.errors import UserError
from runtime.manifest import PoolingTensors, TensorInfo
from runtime.session import Session

Layout = Literal["NCHW", "NHWC"]

# Scale and zero point of the 8-bit tensors: 1/255 and the type's least value, as in our files.
_EIGHT_BITS: dict[str, tuple[float | None, int | None]] = {
    "int8": (1 / 255, -128),
    "uint8": (1 / 255, 0),
}


def _tensor(name: str, layout: Layout, dtype: str, channels: int | None = 3) -> TensorInfo:
    shape = (1, channels, None, None) if layout == "NCHW" else (1, None, None, channels)
    scale, zero_point = _EIGHT_BITS.get(dtype, (None, None))
    return TensorInfo(name, layout, dtype, shape, scale=scale, zero_point=zero_point)


class _Repeating(Engine):
    """Returns the picture with every pixel twice in each direction; features are its pixels."""

    def __init__(self, layout: Layout, dtype: str, pooled: bool = False) -> None:
        names = (["image", "pooled"], ["features", "restored"]) if pooled else (["image"], ["r"])
        inputs, outputs = (tuple(_tensor(n, layout, dtype) for n in one) for one in names)
        super().__init__("NumPy", inputs, outputs)
        self.fed: dict[str, NDArray[Any]] = {}
        self.invoked = self.closed = 0

    def feed(self, name: str, array: NDArray[Any]) -> None:
        if 13 in array.shape:
            raise RuntimeError("13 brings bad luck.\nmore")
        self.fed[name] = array

    def invoke(self) -> None:
        if 17 in self.fed["image"].shape:
            raise KeyError("17 is odd")
        if 19 in self.fed["image"].shape:
            raise MemoryError
        self.invoked += 1

    def fetch(self, name: str) -> NDArray[Any]:
        image = self.fed["image"]
        if name == "features":
            return image
        rows = 2 if self.inputs[0].layout == "NCHW" else 1
        return image.repeat(2, axis=rows).repeat(2, axis=rows + 1)

    def close(self) -> None:
        self.closed += 1


def _levels(height: int, width: int) -> NDArray[np.float32]:
    """A picture of 8-bit levels, all different."""
    count = height * width * 3
    return (np.arange(count).reshape(height, width, 3) * (255 // count) / 255).astype(np.float32)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_pictures_go_in_and_come_back(layout: Layout, dtype: str) -> None:
    engine, picture = _Repeating(layout, dtype), _levels(4, 5)
    with Session("a", engine, scale=2) as session:
        restored = session.run(picture)
    assert (engine.invoked, engine.closed) == (1, 1)

    fed = engine.fed["image"]
    assert fed.dtype == dtype
    assert fed.flags.c_contiguous
    assert fed.shape == ((1, 3, 4, 5) if layout == "NCHW" else (1, 4, 5, 3))
    # The blue of the pixel in row 2, column 3: level 4 · ((2 · 5 + 3) · 3 + 2) = 164.
    expected = {"int8": 164 - 128, "uint8": 164}.get(dtype, np.float32(164 / 255).astype(dtype))
    assert fed[(0, 2, 2, 3) if layout == "NCHW" else (0, 2, 3, 2)] == expected
    assert restored.dtype == np.float32
    tolerance = 5e-4 if dtype == "float16" else 1e-7
    np.testing.assert_allclose(restored, picture.repeat(2, 0).repeat(2, 1), atol=tolerance)


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        ([[[0.5, 0.5, 0.5]]], "found list: numpy.asarray makes an array"),
        (np.zeros((0, 4, 3), np.float32), "found float32 0×4×3 without pixels"),
        (np.zeros((4, 4, 3), np.uint8), "found uint8 4×4×3: convert it first"),
        (np.zeros((4, 4), np.float32), "found float32 4×4: convert it first"),
        (np.zeros((3, 4, 4), np.float32), "found float32 3×4×4: convert it first"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, found: str) -> None:
    session = Session("a", _Repeating("NCHW", "float32"), 2)
    with pytest.raises(UserError, match="a picture is an array H × W × 3 of float32 or") as caught:
        session.run(picture)
    assert found in str(caught.value)


def test_eight_bits_are_rounded_half_to_even_and_clipped() -> None:
    scaled = TensorInfo("image", "NCHW", "uint8", (1, 3, None, None), scale=0.5, zero_point=3)
    engine = _Repeating("NCHW", "uint8")
    engine.inputs = (scaled,)
    engine.outputs = (TensorInfo("r", "NCHW", "uint8", scaled.shape, scale=0.25, zero_point=1),)

    restored = Session("a", engine, 2).run(np.float32([[[0.25, 0.75, 1.25], [-0.25, -9, 1000]]]))

    # Halves: 0.5 → 0, 1.5 → 2, 2.5 → 2, −0.5 → 0, and then 3 is added; 0 and 255 are the ends.
    np.testing.assert_array_equal(engine.fed["image"][0, :, 0], [[3, 3], [5, 0], [5, 255]])
    np.testing.assert_array_equal(restored[0, 0], [0.5, 1.0, 1.0])
    np.testing.assert_array_equal(restored[0, 2], [0.5, -0.25, 63.5])


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_pooled_vector_is_fed_and_features_come_back(layout: Layout, dtype: str) -> None:
    engine, picture = _Repeating(layout, dtype, pooled=True), _levels(2, 3)
    pooling = PoolingTensors(engine.outputs[0], engine.inputs[1])
    session = Session("a", engine, scale=2, pooling=pooling)

    _, features = session.run_pooled(picture, None)
    assert not engine.fed["pooled"].any()
    restored, _ = session.run_pooled(picture, np.float32([51, 102, 255]) / np.float32(255))

    vector = engine.fed["pooled"]
    assert vector.shape == ((1, 3, 1, 1) if layout == "NCHW" else (1, 1, 1, 3))
    assert vector.dtype == dtype
    levels = [51, 102, 255] if dtype == "uint8" else np.float32([0.2, 0.4, 1]).astype(dtype)
    np.testing.assert_array_equal(vector.ravel(), levels)
    np.testing.assert_allclose(features, picture, atol=5e-4)
    assert restored.shape == (4, 6, 3)


def test_what_an_engine_cannot_take_is_told_with_the_size() -> None:
    with pytest.raises(UserError) as caught:
        Session("a", _Repeating("NHWC", "float32"), 2).run(_levels(13, 2))

    assert str(caught.value) == (
        "NumPy cannot run this artifact at 13×2 (13 brings bad luck); export it again, or restore "
        "in tiles of another size"
    )


def test_what_a_runtime_cannot_run_is_told_with_the_size() -> None:
    session = Session("a", _Repeating("NCHW", "float32"), 2)
    with pytest.raises(UserError, match=r"NumPy cannot run this artifact at 17×2 .*17 is odd"):
        session.run(_levels(17, 2))
    with pytest.raises(MemoryError):
        session.run(_levels(19, 2))


def test_facts_about_an_artifact_are_attributes() -> None:
    engine = _Repeating("NHWC", "float32")
    engine.inputs = (TensorInfo("image", "NHWC", "float32", (1, 6, 9, 3)),)
    inner = Session("b", _Repeating("NHWC", "float32"), 2)

    session = Session("a", engine, 2, 7, open_tiled=lambda: inner)

    assert (session.scale, session.halo, session.fixed_size) == (2, 7, (6, 9))
    assert session.runtime_name == "NumPy"
    assert session.open_tiled is not None
    assert session.open_tiled() is inner
    with pytest.raises(UserError, match="6×9 only; got 4×4"):
        session.prepare(_levels(4, 4))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((), ("r",), r"net: 0 inputs found"),
        (("image",), ("r", "s"), r"net: 2 outputs found"),
    ],
)
def test_networks_with_other_tensors_are_refused(
    inputs: tuple[str, ...], outputs: tuple[str, ...], message: str
) -> None:
    engine = _Repeating("NHWC", "float32")
    engine.inputs = tuple(_tensor(name, "NHWC", "float32") for name in inputs)
    engine.outputs = tuple(_tensor(name, "NHWC", "float32") for name in outputs)
    with pytest.raises(UserError, match=message):
        Session("net", engine, 2)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (TensorInfo("r", "NCHW", "float32", (1, 3, None)), r"output is 1×3×\?, expected one RGB"),
        (TensorInfo("r", "NCHW", "float32", (1, 4, None, None)), r"output is 1×4×\?×\?, expected"),
        (TensorInfo("r", "NCHW", "float32", (2, 3, None, None)), r"output is 2×3×\?×\?, expected"),
        (
            TensorInfo("r", "NCHW", "float32", (1, None, None, 3)),
            r"output is 1×\?×\?×3, channels last \(NHWC\); expected channels first, 1×3×H×W",
        ),
        (TensorInfo("r", "NCHW", "float32", (1, 64, 48, 3)), "output is 1×64×48×3, channels last"),
        (TensorInfo("r", "NCHW", "float64", (1, 3, None, None)), "'r' is float64, expected float3"),
        (TensorInfo("r", "NCHW", "int8", (1, 3, None, None)), "'r' is int8 without a scale"),
    ],
)
def test_outputs_that_are_no_picture_are_refused(output: TensorInfo, message: str) -> None:
    engine = _Repeating("NCHW", "float32")
    engine.outputs = (output,)
    with pytest.raises(UserError, match=message):
        Session("net", engine, 2)
