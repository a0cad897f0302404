"""Training pictures from wallpaper packages."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from training.data.pictures import read_rgb
from training.data.wallpapers import Wallpaper, listed_wallpapers, reduce_wallpapers


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
    unpacked, out = tmp_path / "unpacked", tmp_path / "train"
    assert reduce_wallpapers(unpacked, out, [photograph]) == []
    reduced = read_rgb(out / "wallpaper_000.png")
    assert reduced.shape == (15, 22, 3)
    assert (reduced == (10, 120, 250)).all()
    # Made once, a picture needs its package no more.
    assert reduce_wallpapers(tmp_path, out, [photograph]) == []


def test_what_is_lacking_is_told_and_the_others_keep_their_numbers(
    photograph: Wallpaper, tmp_path: Path
) -> None:
    absent = replace(photograph, path="usr/share/backgrounds/lake.jpg")
    another = replace(photograph, sha256="0" * 64)
    unpacked, out = tmp_path / "unpacked", tmp_path / "train"
    assert reduce_wallpapers(unpacked, out, [absent, another, photograph]) == [absent, another]
    assert [path.name for path in out.iterdir()] == ["wallpaper_002.png"]


def test_a_folder_without_any_is_refused(photograph: Wallpaper, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds none of the 1 photographs"):
        reduce_wallpapers(tmp_path, tmp_path / "train", [photograph])
    assert not (tmp_path / "train").exists()
