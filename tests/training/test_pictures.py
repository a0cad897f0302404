from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from training.pictures import PatchSource, data_folder, picture_paths, read_rgb


def test_the_data_folder_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path))
    assert data_folder() == tmp_path.resolve()
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no such folder"):
        data_folder()
    monkeypatch.delenv("RESLITE_DATA")
    monkeypatch.chdir(tmp_path)
    assert data_folder() is None


def test_only_pictures_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.WEBP", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in picture_paths(tmp_path)] == ["a.WEBP", "b.png"]
    with pytest.raises(UserError, match="no such folder"):
        picture_paths(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        picture_paths(tmp_path / "empty")


def test_grey_is_spread_over_three_channels(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.dstack([grey] * 3))


def test_colours_are_permuted_alike_in_both_patches_of_a_pair() -> None:
    # Of one colour, which reductions do not change.
    picture = np.full((32, 32, 3), (10, 20, 30), np.uint8)
    source = replace(PatchSource.from_pictures([picture], (2,)), permute_colours=True)
    low, high = source.batch(np.random.default_rng(0), 2, 8, 40)
    orders = {tuple(patch[0, 0]) for patch in low}
    assert len(orders) == 6
    assert all(sorted(order) == [10, 20, 30] for order in orders)
    for small, large in zip(low, high, strict=True):
        assert (large == small[0, 0]).all()


def test_large_pictures_are_drawn_from_more_often_by_area_only() -> None:
    pictures = [np.full((side, 32, 3), value, np.uint8) for value, side in ((1, 32), (2, 96))]
    source = PatchSource.from_pictures(pictures, (2,))

    def drawn_from_the_large(source: PatchSource) -> float:
        _, high = source.batch(np.random.default_rng(0), 2, 8, 2000)
        return float((high == 2).mean())

    assert drawn_from_the_large(source) == pytest.approx(0.5, abs=0.05)
    assert drawn_from_the_large(replace(source, by_area=True)) == pytest.approx(0.75, abs=0.05)
