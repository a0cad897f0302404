from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.pictures.files import picture_paths
from training.data.pictures import read_rgb
from training.degradations import bicubic

_NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_reductions_of_set5_equal_matlabs_to_the_bit(standard_data: Path, scale: int) -> None:
    for path in picture_paths(standard_data / "set5" / "HR"):
        expected = read_rgb(standard_data / "set5" / f"LRx{scale}" / path.name)
        reduced = bicubic.reduce(bicubic.crop_to_multiple(read_rgb(path), scale), scale)
        np.testing.assert_array_equal(reduced, expected, err_msg=path.name)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interior_agrees_with_torchs_antialiased_bicubic(
    astronaut: NDArray[np.uint8], scale: int
) -> None:
    # Middle greys only: MATLAB clips between rows and columns, torch does not.
    picture = bicubic.crop_to_multiple(astronaut // 2 + 64, scale)
    size = (picture.shape[0] // scale, picture.shape[1] // scale)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(tensor, size, mode="bicubic", antialias=True)
    expected = expected[0].permute(1, 2, 0).numpy()

    reduced = bicubic.reduce(picture, scale)

    # Two roundings, after rows and columns; only borders are extended differently.
    assert np.abs(reduced - expected)[4:-4, 4:-4].max() <= 1.01


@pytest.mark.parametrize("scale", [2, 4])
def test_a_reduction_done_by_hand(scale: int) -> None:
    """Keys' kernel stretched by the scale, rounded to 8 bits after the rows and the columns."""
    picture = np.random.default_rng(0).integers(0, 256, (8 * scale, 8 * scale), np.uint8)

    def keys(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0

    # Row t lies at (t + 0.5) · scale; the kernel reaches two rows to either side.
    padded = np.pad(picture, 2 * scale, mode="symmetric")
    places = np.arange(-2 * scale, 10 * scale) + 0.5
    weights = np.array([[keys(p / scale - t - 0.5) / scale for p in places] for t in range(8)])
    rows = np.clip(np.floor(weights @ padded + 0.5), 0, 255)
    expected = np.clip(np.floor(rows @ weights.T + 0.5), 0, 255)
    np.testing.assert_array_equal(bicubic.reduce(picture, scale), expected)


@given(value=st.integers(0, 255), height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_flat_picture_stays_flat_at_any_size(value: int, height: int, width: int) -> None:
    flat = np.full((12, 8, 3), value, np.uint8)
    resized = bicubic.resize(flat, height, width)
    assert resized.shape == (height, width, 3)
    assert (resized == value).all()


def test_resizing_to_the_same_size_changes_nothing(astronaut: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(bicubic.resize(astronaut, 512, 512), astronaut)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reduction_commutes_with_mirroring(astronaut: NDArray[np.uint8], scale: int) -> None:
    picture = bicubic.crop_to_multiple(astronaut, scale)[:60, :60]
    mirrored = bicubic.reduce(picture[:, ::-1], scale)[:, ::-1]
    difference = mirrored.astype(int) - bicubic.reduce(picture, scale)
    assert np.abs(difference).max() <= 1  # a tie may round the other way


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=_NEEDS_CUDA)])
@pytest.mark.parametrize("autocast", [False, True])
def test_windows_are_reduced_as_the_picture_around_them_is(
    astronaut: NDArray[np.uint8], scale: int, device: str, autocast: bool
) -> None:
    side, margin = 24 * scale, bicubic.margin(scale)
    picture = bicubic.crop_to_multiple(astronaut, scale)
    expected = bicubic.reduce(picture, scale)
    mirrored = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    places = (0, 17, expected.shape[0] - 24)  # at an edge, inside, at another edge
    windows = np.stack(
        [
            mirrored[scale * one :, scale * one :][: side + 2 * margin, : side + 2 * margin]
            for one in places
        ]
    )
    patches = np.stack([expected[one : one + 24, one : one + 24] for one in places])

    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        reduced = bicubic.reduce_windows(torch.from_numpy(windows).to(device), scale).cpu().numpy()

    differences = np.abs(reduced.astype(int) - patches)
    assert differences.max() <= (0 if scale in {2, 4} else 1)
    assert (differences > 0).mean() < 0.005  # a tie may round the other way


def test_a_picture_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of 3"):
        bicubic.reduce(np.zeros((10, 9, 3), np.uint8), 3)
