"""PNG files are decoded by Pillow, which shares no code with the writer."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.pictures.png import write_png

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _written(samples: np.ndarray, alpha: bool, icc: bytes | None = None) -> Image.Image:
    stream = io.BytesIO()
    colours = samples.shape[2] - alpha
    write_png(stream, samples[..., :colours], samples[..., colours:] if alpha else None, icc)
    stream.seek(0)
    return Image.open(stream)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 140), width=st.integers(1, 30), channels=st.integers(1, 4),
    smooth=st.booleans(),
)  # fmt: skip
def test_eight_bit_pictures_come_back(height: int, width: int, channels: int, smooth: bool) -> None:
    random = np.random.default_rng(height * width)
    samples = random.integers(0, 256, (height, width, channels)).astype(np.uint8)
    if smooth:  # gradients make all three filters win somewhere
        samples = samples // 32 + np.arange(height, dtype=np.uint8)[:, None, None] * 3

    image = _written(samples, alpha=channels in (2, 4))

    assert image.mode == MODES[channels]
    np.testing.assert_array_equal(np.asarray(image).reshape(samples.shape), samples)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pictures_come_back(channels: int) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (70, 13, channels)).astype(np.uint16)

    image = _written(samples, alpha=channels in (2, 4))

    decoded = np.asarray(image)
    if channels == 1:
        np.testing.assert_array_equal(decoded, samples[..., 0])
    else:  # Pillow gives the high bytes, and grey with alpha as RGBA
        kept = [0, 3] if channels == 2 else list(range(channels))
        np.testing.assert_array_equal(decoded[..., kept], samples >> 8)


def test_profile_and_header() -> None:
    image = _written(np.zeros((3, 5, 3), np.uint8), alpha=False, icc=b"profile")

    assert image.size == (5, 3)
    assert image.info["icc_profile"] == b"profile"


def test_photographs_are_about_as_small_as_pillow_makes_them(astronaut: np.ndarray) -> None:
    ours, pillows = io.BytesIO(), io.BytesIO()
    write_png(ours, astronaut)
    Image.fromarray(astronaut).save(pillows, "PNG")

    assert len(ours.getvalue()) < 1.1 * len(pillows.getvalue())
