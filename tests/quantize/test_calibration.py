"""The same pictures always give the same crops and record; other pictures another record."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quantize.calibration import (
    calibration_crops,
    calibration_pictures,
    calibration_record,
    few_photographs,
    scikit_image_pictures,
    small_crops,
)
from runtime.errors import UserError
from runtime.sides import ANY_SIDES, Sides
from training.data.pictures import read_rgb
from training.degradations import bicubic
from training.tasks import SUPER_RESOLUTION


def test_crops_are_reductions_of_windows_of_the_pictures(noise_folder: Path) -> None:
    paths = calibration_pictures(noise_folder)

    crops = calibration_crops(paths, SUPER_RESOLUTION, 2, count=4, size=12)

    assert [crop.shape for crop in crops] == [(12, 12, 3)] * 4
    assert all(crop.dtype == np.uint8 for crop in crops)
    for index, crop in enumerate(crops):
        picture = read_rgb(paths[index % 3])
        windows = (
            picture[top : top + 24, left : left + 24]
            for top in range(40 - 24 + 1)
            for left in range(50 - 24 + 1)
        )
        assert any(np.array_equal(bicubic.reduce(window, 2), crop) for window in windows)


def test_the_seed_decides_the_crops(noise_folder: Path) -> None:
    paths = calibration_pictures(noise_folder)
    first, again, other = (
        calibration_crops(paths, SUPER_RESOLUTION, 2, 5, 8, seed) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_small_picture_gives_a_small_crop(noise_folder: Path) -> None:
    (crop,) = calibration_crops(calibration_pictures(noise_folder, 1), SUPER_RESOLUTION, 4, count=1)

    assert crop.shape == (10, 12, 3)


def test_a_few_photographs_are_taken_where_there_are_any(
    noise_folder: Path, tmp_path: Path
) -> None:
    found = few_photographs(SUPER_RESOLUTION, 2, noise_folder)
    assert [one.shape for one in found] == [(20, 25, 3)] * 4
    assert all(one.dtype == np.float32 and one.min() >= 0 and 0.5 < one.max() <= 1 for one in found)

    assert few_photographs(SUPER_RESOLUTION, 2, tmp_path / "missing") == []
    Image.new("RGB", (9, 9)).save(tmp_path / "tiny.png")
    assert few_photographs(SUPER_RESOLUTION, 2, tmp_path) == []


def test_a_tiny_picture_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (15, 40)).save(tmp_path / "tiny.png")

    with pytest.raises(UserError, match=r"tiny\.png: 15×40 .* at least 16×16"):
        calibration_crops([tmp_path / "tiny.png"], SUPER_RESOLUTION, 2)


def test_as_many_pictures_as_crops_are_chosen_by_seed(noise_folder: Path) -> None:
    chosen = {seed: calibration_pictures(noise_folder, 2, seed) for seed in range(8)}

    assert all(len(paths) == 2 and paths == sorted(paths) for paths in chosen.values())
    assert len({tuple(paths) for paths in chosen.values()}) == 3
    assert chosen[3] == calibration_pictures(noise_folder, 2, 3)


def test_the_record_names_the_pictures_and_hashes_their_contents(noise_folder: Path) -> None:
    paths = calibration_pictures(noise_folder)
    record = calibration_record(paths)

    assert record.pictures == ("noise0.png", "noise1.png", "noise2.png")
    each = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    assert record.sha256 == hashlib.sha256(each).hexdigest()

    picture = read_rgb(paths[1])
    picture[0, 0, 0] ^= 1
    Image.fromarray(picture).save(paths[1])
    changed = calibration_record(paths)
    assert changed.pictures == record.pictures
    assert changed.sha256 != record.sha256
    assert calibration_record(paths[:2]).sha256 != changed.sha256


def test_training_pictures_are_the_default(
    noise_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    (noise_folder / "noise0.png").rename(data / "train" / "training.png")
    monkeypatch.setenv("RESLITE_DATA", str(data))

    assert [path.name for path in calibration_pictures()] == ["training.png"]


def test_pictures_inside_scikit_image_serve_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESLITE_DATA", raising=False)

    names = {path.name for path in calibration_pictures()}

    assert {"astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"} <= names
    assert len(calibration_crops(scikit_image_pictures(), SUPER_RESOLUTION, 4)) == 48


def test_without_any_pictures_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESLITE_DATA", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UserError, match="--calibration DIR"):
        calibration_pictures()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pictures"):
        calibration_pictures(tmp_path)


def test_small_crops_are_few_and_small() -> None:
    images = [torch.rand(1, 3, height, 50) for height in range(60, 80)]
    crops = small_crops(images, ANY_SIDES)
    assert [tuple(crop.shape[2:]) for crop in crops] == [(min(h, 64), 50) for h in range(60, 76)]
    assert torch.equal(crops[15], images[15][:, :, :64])
    # Of networks that take multiples of several pixels, or a least number.
    large = [torch.rand(1, 3, 96, 192)]
    for multiple, minimum, expected in ((24, 24, (48, 48)), (96, 96, (96, 96)), (2, 80, (80, 80))):
        (crop,) = small_crops(large, Sides(multiple, minimum))
        assert tuple(crop.shape[2:]) == expected
