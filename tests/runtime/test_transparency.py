"""Colours under transparent pixels do not reach the visible ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pictures.transparency import with_spread_colours


def _disc(size: int, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A disc of one colour with a soft edge; what is outside is black and transparent."""
    y, x = np.mgrid[0:size, 0:size]
    white = np.iinfo(dtype).max
    alpha = np.clip(size / 3 - np.hypot(x - size / 2, y - size / 2) + 0.5, 0, 1)[..., None]
    colour = np.array([220, 60, 40]) * (white // 255)
    pixels = np.where(alpha > 0, colour, 0).astype(dtype)
    return pixels, np.rint(white * alpha).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [1, 7, 40, 129, 200])
def test_one_visible_colour_fills_the_picture(size: int, dtype: type) -> None:
    pixels, alpha = _disc(size, dtype)
    alpha[size // 2, size // 2] = np.iinfo(dtype).max
    pixels[size // 2, size // 2] = np.array([220, 60, 40]) * (np.iinfo(dtype).max // 255)

    spread = with_spread_colours(pixels, alpha)

    assert spread.dtype == dtype
    assert np.unique(spread.reshape(-1, 3), axis=0).shape == (1, 3)


@given(height=st.integers(1, 150), width=st.integers(1, 40), seed=st.integers(0, 9))
def test_visible_pixels_stay_and_hidden_ones_lie_between_them(
    height: int, width: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(50, 200, (height, width, 3)).astype(np.uint8)
    alpha = (random.random((height, width, 1)) < 0.3).astype(np.uint8) * 255
    alpha[0, 0] = 1
    visible = alpha[..., 0] > 0
    hidden = np.where(visible[..., None], pixels, 0)

    spread = with_spread_colours(hidden, alpha)

    np.testing.assert_array_equal(spread[visible], pixels[visible])
    shown = pixels[visible].astype(int)
    assert np.all(spread >= shown.min(0)) and np.all(spread <= shown.max(0))


def test_the_nearest_side_decides() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :8], pixels[:, 56:] = (255, 0, 0), (0, 0, 255)
    alpha = np.zeros((64, 64, 1), np.uint8)
    alpha[:, :8] = alpha[:, 56:] = 255

    spread = with_spread_colours(pixels, alpha)

    assert np.all(spread[:, 8:16] == (255, 0, 0))
    assert np.all(spread[:, 48:56] == (0, 0, 255))


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_plane_without_structure_changes_nothing(alpha: int) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    plane = np.full((4, 4, 1), alpha, np.uint8)
    assert with_spread_colours(pixels, plane) is pixels
