"""One body for every engine that runs here: what the contract of engines promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from runtime.engines.engine import Engine
from runtime.formats import FORMATS, Format
from runtime.manifest import TensorInfo

_ENGINES = [
    (kind, name) for kind in get_args(Format) for name in FORMATS[kind].engines if name != "coreml"
]
"""Core ML runs on macOS only; ``test_opening.py`` has its test."""


@pytest.fixture(params=_ENGINES, ids=[name for _, name in _ENGINES])
def engine(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    write_tflite: Callable[..., Path],
    write_onnx: Callable[..., Path],
    write_coreai: Callable[..., Path],
) -> Iterator[Engine]:
    kind: Format
    kind, name = request.param
    writers = {"tflite": write_tflite, "onnx": write_onnx, "coreai": write_coreai}
    path = writers[kind](tmp_path / f"a{FORMATS[kind].suffix}")
    opened: Engine = import_module(f"runtime.engines.{name}_engine").open_engine(path, 1)
    yield opened
    opened.close()


def _picture(engine: Engine, height: int, width: int) -> np.ndarray:
    shape = (3, height, width) if engine.inputs[0].layout == "NCHW" else (height, width, 3)
    return np.random.default_rng(height).random((1, *shape), np.float32)


def test_tensors_are_those_of_the_file(engine: Engine) -> None:
    layout = engine.inputs[0].layout
    shape = (1, 3, None, None) if layout == "NCHW" else (1, None, None, 3)

    assert engine.inputs == (TensorInfo("image", layout, "float32", shape),)
    assert engine.outputs == (TensorInfo("restored_image", layout, "float32", shape),)


def test_a_scale_of_eight_bits_is_that_of_the_file(
    tmp_path: Path, write_tflite: Callable[..., Path]
) -> None:
    from runtime.engines.litert_engine import open_engine

    opened = open_engine(write_tflite(tmp_path / "a.tflite", int8=True), 1)

    (image,), (restored,) = opened.inputs, opened.outputs
    assert (image.dtype, image.scale, image.zero_point) == ("int8", np.float32(1 / 255), -128)
    assert (restored.scale, restored.zero_point) == (np.float32(1.5 / 255), -100)


def test_sizes_change_and_outputs_follow(engine: Engine) -> None:
    for size in ((5, 9), (1, 1), (7, 3), (5, 9)):
        image = _picture(engine, *size)
        engine.feed("image", image)
        engine.invoke()
        doubled = [2 * extent for extent in size]
        restored = engine.fetch("restored_image")
        assert sorted(restored.shape) == sorted((1, 3, *doubled))
        assert restored.dtype == np.float32


def test_what_was_fed_stays_until_something_else_is(engine: Engine) -> None:
    engine.feed("image", _picture(engine, 6, 7))
    engine.invoke()
    first = engine.fetch("restored_image").copy()
    engine.invoke()
    again = engine.fetch("restored_image")
    np.testing.assert_array_equal(again, first)

    engine.feed("image", 1 - _picture(engine, 6, 7))
    engine.invoke()

    np.testing.assert_array_equal(again, first)
    assert np.abs(engine.fetch("restored_image") - first).max() > 0.01


def test_an_engine_can_be_closed_twice(engine: Engine) -> None:
    engine.close()
    engine.close()
