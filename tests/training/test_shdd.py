from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from runtime.errors import UserError
from training.data.pictures import Picture
from training.data.shdd_dataset import write_dataset
from training.data.versions import DegradedVersions, patch_source
from training.degradations.degradation import RANDOM_VERSIONS, Region, version_random
from training.degradations.levels import ScoredLevel
from training.degradations.shdd import (
    CHOPS,
    DEGRADATIONS,
    STRENGTHS,
    distort,
    pink_noise,
    plan_regions,
    read_explanation,
)


def _picture(height: int = 120, width: int = 160) -> Picture:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    level=st.sampled_from(sorted(CHOPS)),
    seed=st.integers(0, 999),
)
def test_regions_cover_a_picture_of_any_size_exactly_once(
    height: int, width: int, level: ScoredLevel, seed: int
) -> None:
    regions = plan_regions(np.random.default_rng(seed), height, width, level)
    covered = np.zeros((height, width), int)
    for region in regions:
        covered[region.window()] += 1
        low, high = STRENGTHS[region.kind]
        assert low <= region.strength <= high
    assert (covered == 1).all()
    if min(height, width) > 64:
        assert len(regions) == CHOPS[level] + 1
        assert min(min(r.height, r.width) for r in regions) >= 2


def _regions_of(kind: str) -> list[tuple[Picture, Picture, Region]]:
    """Regions of one kind: distorted, original and the region."""
    picture, found = _picture(300, 400), []
    for version in range(30):
        distorted = distort(picture, "moderate", version_random(0, "a", version))
        found += [
            (distorted.pixels[one.window()], picture[one.window()], one)
            for one in distorted.regions
            if one.kind == kind and min(one.height, one.width) > 40
        ]
    assert len(found) >= 5
    return found


def test_noise_has_its_variance() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    for version in range(20):
        distorted = distort(grey, "easy", version_random(1, 0, version))
        for region in distorted.regions:
            if region.kind == "noise" and region.height * region.width > 2000:
                values = distorted.pixels[region.window()] / 255 - 128 / 255
                assert values.var() == pytest.approx(region.strength, rel=0.1)


def test_blur_is_scipys_gaussian_of_the_block_alone() -> None:
    for distorted, original, region in _regions_of("blur"):
        deviation = np.sqrt(region.strength)
        expected = ndimage.gaussian_filter(
            original.astype(float), (deviation, deviation, 0), mode="reflect", truncate=6
        )
        assert np.abs(distorted - expected).max() <= 0.51


def test_contrast_follows_its_formula() -> None:
    for distorted, original, region in _regions_of("contrast"):
        level = region.strength
        factor = 259 * (level + 255) / (255 * (259 - level))
        expected = np.clip(factor * (original.astype(float) - 128) + 128, 0, 255)
        assert np.abs(distorted - expected).max() <= 0.51


def test_identity_changes_nothing() -> None:
    for distorted, original, _ in _regions_of("identity"):
        np.testing.assert_array_equal(distorted, original)


def test_untouched_pictures_are_one_region_that_nothing_befell() -> None:
    picture = _picture()
    found = DEGRADATIONS["untouched"].degrade(picture, 1, version_random(0, "a", 0))
    np.testing.assert_array_equal(found.pixels, picture)
    assert found.regions == (Region(0, 0, 120, 160, "identity", 0.0),)
    assert DEGRADATIONS["untouched"].kinds == ("identity",)
    assert DEGRADATIONS["easy"].kinds == ("noise", "blur", "f-noise", "contrast", "identity")


def test_pink_noise_falls_as_one_over_f() -> None:
    random = np.random.default_rng(0)
    spectrum = np.mean(
        [np.abs(np.fft.fft2(pink_noise(random, 128, 128))) for _ in range(50)], axis=0
    )
    frequencies = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    chosen = (frequencies > 0.02) & (frequencies < 0.5)
    slope, _ = np.polyfit(np.log(frequencies[chosen]), np.log(spectrum[chosen]), 1)
    assert slope == pytest.approx(-1, abs=0.05)
    field = pink_noise(random, 60, 80)
    assert (field.mean(), field.std()) == pytest.approx((0, 1), abs=1e-5)
    assert pink_noise(random, 1, 1) == 0


def test_equal_arguments_give_equal_pixels_and_others_do_not() -> None:
    picture = _picture()
    first = distort(picture, "moderate", version_random(3, "bird", 5))
    again = distort(picture, "moderate", version_random(3, "bird", 5))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.regions == again.regions
    for other in ((4, "bird", 5), (3, "bird", 6), (3, "butterfly", 5)):
        assert not np.array_equal(
            distort(picture, "moderate", version_random(*other)).pixels, first.pixels
        )


def test_training_patches_are_windows_of_the_versions_and_their_originals() -> None:
    pictures = [_picture(), _picture(90, 70)]
    source = patch_source(pictures, DEGRADATIONS["easy"], (1,), seed=2)
    versions = source.degraded[1]
    assert isinstance(versions, DegradedVersions)
    assert len(versions) == len(source.originals) == 2 * RANDOM_VERSIONS
    np.testing.assert_array_equal(
        versions[RANDOM_VERSIONS + 3], distort(pictures[1], "easy", version_random(2, 1, 3)).pixels
    )
    assert source.originals[RANDOM_VERSIONS + 3] is pictures[1]
    originals, distorted = source.windows(np.random.default_rng(0), 1, 24, 6)
    assert originals.shape == distorted.shape == (6, 24, 24, 3)
    again = source.windows(np.random.default_rng(0), 1, 24, 6)
    np.testing.assert_array_equal(distorted, again[1])


def test_versions_beyond_the_memory_for_them_are_distorted_anew() -> None:
    picture = _picture(20, 20)
    easy = DEGRADATIONS["easy"]
    versions = DegradedVersions([picture], easy, 1, 0, kept_bytes=2 * picture.nbytes)
    for index in range(4):
        versions[index]
    assert versions[1] is versions[1]
    assert versions[3] is not versions[3]
    np.testing.assert_array_equal(versions[3], versions[3])


def test_a_dataset_holds_what_it_says_and_is_finished_when_repeated(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.fromarray(_picture()).save(tmp_path / "in" / "bird.png")
    written = write_dataset(tmp_path / "in", tmp_path / "out", "difficult", 3, 7)
    assert (written.pictures, written.versions, written.kept) == (1, 3, 0)
    regions = read_explanation(tmp_path / "out" / "LR" / "bird_02.json").regions
    assert len(regions) == 5
    expected = distort(_picture(), "difficult", version_random(7, "bird", 2))
    assert regions == expected.regions
    found = np.array(Image.open(tmp_path / "out" / "LR" / "bird_02.png"))
    np.testing.assert_array_equal(found, expected.pixels)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/HR/bird.png")), _picture())

    (tmp_path / "out" / "LR" / "bird_01.json").unlink()
    repeated = write_dataset(tmp_path / "in", tmp_path / "out", "difficult", 3, 7)
    assert repeated.kept == 2
    with pytest.raises(UserError, match="is of level difficult and seed 7, not easy and 7"):
        write_dataset(tmp_path / "in", tmp_path / "out", "easy", 3, 7)
    replaced = write_dataset(tmp_path / "in", tmp_path / "out", "easy", 3, 7, overwrite=True)
    assert replaced.kept == 0
    assert len(read_explanation(tmp_path / "out" / "LR" / "bird_00.json").regions) == 3
    write_dataset(tmp_path / "in", tmp_path / "out", "difficult", 3, 7, overwrite=True)
    assert (tmp_path / "out" / "LR" / "bird_01.json").exists()


def test_a_dataset_keeps_originals_and_versions_together(tmp_path: Path) -> None:
    from PIL import Image

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(_picture()).save(source / "bird.png")
    write_dataset(source, out, "easy", 2, 7)
    (out / "LR" / "bird_01.png").unlink()
    (out / "HR" / "bird.png").unlink()
    assert write_dataset(source, out, "easy", 2, 7).kept == 1
    assert (out / "LR" / "bird_01.png").exists()
    assert (out / "HR" / "bird.png").exists()

    Image.fromarray(255 - _picture()).save(source / "bird.png")
    with pytest.raises(UserError, match=r"HR/bird\.png: is another picture than .*in/bird\.png"):
        write_dataset(source, out, "easy", 3, 7)
    assert not (out / "LR" / "bird_02.png").exists()

    Image.fromarray(_picture()).save(source / "bird_00.jpg")
    with pytest.raises(UserError, match=r"bird_00\.jpg: bears the name of a version of bird\.png"):
        write_dataset(source, tmp_path / "other", "easy", 1, 7)


def test_a_damaged_picture_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    from PIL import Image

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("ape", "bird", "cat"):
        Image.fromarray(_picture()).save(source / f"{name}.png")
    whole = (source / "bird.png").read_bytes()
    (source / "bird.png").write_bytes(whole[: len(whole) // 2])

    written = write_dataset(source, out, "easy", 2, 7)

    assert (written.pictures, written.versions, written.kept) == (2, 4, 0)
    (failure,) = written.failures
    assert "bird.png" in failure
    assert sorted(path.name for path in (out / "HR").iterdir()) == ["ape.png", "cat.png"]
    assert len(list((out / "LR").iterdir())) == 8

    (source / "bird.png").write_bytes(whole)
    repeated = write_dataset(source, out, "easy", 2, 7)
    assert (repeated.pictures, repeated.versions, repeated.kept) == (3, 6, 4)
    assert repeated.failures == ()
    assert len(list((out / "LR").glob("bird_0?.png"))) == 2


def test_regions_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in ("{", json.dumps({"regions": [{"top": 1}]}), "[]"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"a\.json: damaged .*run 'reslite make-dataset' again"):
            read_explanation(path)
