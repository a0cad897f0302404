"""Training pictures from wallpaper packages."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from training.pictures import read_rgb
from training.wallpapers import Wallpaper, listed_wallpapers, reduce_wallpapers


@pytest.fixture
def photograph(tmp_path: Path) -> Wallpaper:
    """A photograph where its package would unpack it."""
    path = tmp_path / "unpacked/usr/share/backgrounds/hills.png"
    path.parent.mkdir(parents=True)
    pixels = np.full((60, 90, 3), (10, 120, 250), np.uint8)
    Image.fromarray(pixels).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wallpaper("hills-wallpapers", "1.0", "usr/share/backgrounds/hills.png", 4, digest)


def test_photographs_are_listed_once_each() -> None:
    listed = listed_wallpapers()
    assert len({one.sha256 for one in listed}) == len({one.path for one in listed}) == len(listed)
    assert {one.reduction for one in listed} == {2, 3, 4, 6, 8}
    assert all(one.path.startswith("usr/share/") for one in listed)


def test_photographs_are_reduced_and_kept(photograph: Wallpaper, tmp_path: Path) -> None:
    assert reduce_wallpapers(tmp_path / "unpacked", tmp_path / "train", [photograph]) == 0
    reduced = read_rgb(tmp_path / "train/wallpaper_000.png")
    assert reduced.shape == (15, 22, 3)
    assert (reduced == (10, 120, 250)).all()
    assert reduce_wallpapers(tmp_path / "unpacked", tmp_path / "train", [photograph]) == 1


def test_missing_packages_are_named_before_anything_is_written(
    photograph: Wallpaper, tmp_path: Path
) -> None:
    elsewhere = replace(photograph, package="lakes-wallpapers", path="usr/share/lake.jpg")
    with pytest.raises(UserError, match=r"fetch and unpack lakes-wallpapers=1\.0$"):
        reduce_wallpapers(tmp_path / "unpacked", tmp_path / "train", [photograph, elsewhere])
    assert not (tmp_path / "train").exists()


def test_another_file_of_that_name_is_refused(photograph: Wallpaper, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not the file of hills-wallpapers 2\.0"):
        changed = replace(photograph, version="2.0", sha256="0" * 64)
        reduce_wallpapers(tmp_path / "unpacked", tmp_path / "train", [changed])
    assert not (tmp_path / "train/wallpaper_000.png").exists()
