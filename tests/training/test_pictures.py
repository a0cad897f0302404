from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training.augmentations.colours import PermutedColours
from training.augmentations.flips import Flips
from training.augmentations.untouched import Untouched, retoned
from training.data.batches import Batch
from training.data.patches import PatchSource
from training.data.pictures import data_folder, read_rgb
from training.data.versions import patch_source
from training.degradations import bicubic


def test_the_data_folder_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path))
    assert data_folder() == tmp_path.resolve()
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no such folder"):
        data_folder()
    monkeypatch.delenv("RESLITE_DATA")
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "reslite").mkdir()
    monkeypatch.chdir(tmp_path / "reslite")  # no folder beside the checkout is guessed
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


def test_colours_are_permuted_alike_in_both_windows_of_a_pair() -> None:
    pictures = [np.full((32, 32, 3), colours, np.uint8) for colours in ((10, 20, 30), (1, 2, 3))]
    source = PatchSource(pictures[:1], {1: pictures[1:]}, augment=[Flips(), PermutedColours()])
    originals, distorted = source.windows(np.random.default_rng(0), 1, 8, 40)
    orders = {tuple(window[0, 0]) for window in originals}
    assert len(orders) == 6
    assert all(sorted(order) == [10, 20, 30] for order in orders)
    np.testing.assert_array_equal(originals, 10 * distorted)


@pytest.mark.parametrize("scale", [1, 3])
def test_both_windows_of_a_pair_are_of_one_place_and_turned_alike(scale: int) -> None:
    low = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    high = low.repeat(scale, 0).repeat(scale, 1)
    source = PatchSource([high], {scale: [low]}, augment=[Flips()])
    originals, degraded = source.windows(np.random.default_rng(1), scale, 8, 64)
    np.testing.assert_array_equal(originals, degraded.repeat(scale, 1).repeat(scale, 2))


def test_patches_are_shown_in_all_eight_orientations() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (windows,) = PatchSource([picture], augment=[Flips()]).windows(
        np.random.default_rng(1), 1, 8, 100
    )
    turned = [np.rot90(one, turns) for one in (picture, picture[:, ::-1]) for turns in range(4)]
    assert {one.tobytes() for one in windows} == {one.tobytes() for one in turned}


def test_large_pictures_are_drawn_from_more_often_by_area_only() -> None:
    pictures = [np.full((side, 32, 3), value, np.uint8) for value, side in ((1, 32), (2, 96))]
    source = patch_source(pictures, bicubic.DEGRADATION, (2,), seed=0)

    def drawn_from_the_large(source: PatchSource) -> float:
        (windows,) = source.windows(np.random.default_rng(0), 2, 8, 2000)
        return float((windows == 2).mean())

    assert drawn_from_the_large(source) == pytest.approx(0.5, abs=0.05)
    assert drawn_from_the_large(replace(source, by_area=True)) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_cut_at_any_pixel_if_asked(scale: int) -> None:
    numbers = np.arange(70, dtype=np.uint8)
    picture = np.stack([*np.meshgrid(numbers, numbers), np.zeros((70, 70), np.uint8)], axis=2)
    source = patch_source([picture], bicubic.DEGRADATION, (2, 3, 4), seed=0)

    def places(source: PatchSource) -> set[int]:
        (windows,) = source.windows(np.random.default_rng(0), scale, 8, 500)
        high = Batch(scale, bicubic.DEGRADATION, (torch.from_numpy(windows),)).high
        return set(high[..., :2].amin(dim=(1, 2)).flatten().tolist())

    assert places(source) == set(range(0, 70 - 8 * scale + 1, scale))
    assert places(replace(source, any_phase=True)) == set(range(70 - 8 * scale + 1))


def test_the_share_of_untouched_windows_is_the_original_at_both_places() -> None:
    original, distorted = (np.full((32, 32, 3), value, np.uint8) for value in (100, 200))
    source = PatchSource([original], {1: [distorted]}, augment=[Untouched(share=0.25)])
    high, low = source.windows(np.random.default_rng(0), 1, 8, 2000)
    untouched = (low == high).all(axis=(1, 2, 3))
    assert untouched.mean() == pytest.approx(0.25, abs=0.03)
    assert (low[~untouched] == 200).all() and (high[~untouched] == 100).all()
    as_they_are = (high[untouched] == 100).all(axis=(1, 2, 3))
    assert as_they_are.mean() == pytest.approx(0.5, abs=0.07)


def test_retoned_pictures_keep_their_order_of_levels_and_have_no_gaps() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 64).reshape(-1, 64, 1).repeat(3, axis=2)
    found = [retoned(np.random.default_rng(seed), ramp) for seed in range(50)]
    for one in found:
        means = one.astype(float).mean(axis=1)
        assert (np.diff(means, axis=0) > -0.5).all()
        inner = [np.unique(one[..., channel]) for channel in range(3)]
        assert all((np.diff(levels) == 1).all() for levels in inner)
    clipped = [bool((one[..., c] == 0).mean() > 0.05) for one in found for c in range(3)]
    assert 0.1 < np.mean(clipped) < 0.9  # in some channels, not in all alike
