"""Scores against scikit-image and the published table; folders of every shape; bad pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import runtime
from benchmarks.accuracy import (
    PictureScore,
    Scores,
    baseline,
    max_abs_diff,
    network_restorer,
    psnr_loss,
    score,
    session_restorer,
)
from benchmarks.pairs import Pair, evaluation_pairs, fingerprint, pairs_in
from export.parity import restore_with
from runtime.errors import UserError
from runtime.manifest import Artifact, Manifest
from training.data.pictures import Picture
from training.degradations import bicubic
from training.tasks import SHDD, SUPER_RESOLUTION


def _enlarge(picture: Picture) -> Picture:
    return bicubic.enlarge(picture, 2)


def _noise(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _save(folder: Path, **pictures: Picture) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_scores_are_those_of_scikit_image(pairs: list[Pair]) -> None:
    scores = score(_enlarge, pairs)

    for row, pair in zip(scores.rows, pairs, strict=True):
        ours, theirs = (
            np.floor(rgb2ycbcr(picture)[2:-2, 2:-2, 0] + 0.5)
            for picture in (_enlarge(pair.low), pair.high)
        )
        similarity = structural_similarity(
            ours,
            theirs,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert row.name == pair.name
        assert row.psnr == pytest.approx(peak_signal_noise_ratio(theirs, ours, data_range=255))
        assert row.ssim == pytest.approx(similarity, abs=1e-9)
    assert scores.pictures == 2
    assert scores.psnr == pytest.approx(np.mean([row.psnr for row in scores.rows]))


# Bicubic's published figure; Set5 brings its own reductions.
def test_bicubic_scores_what_the_papers_say(standard_data: Path) -> None:
    pairs = pairs_in(standard_data / "set5", SUPER_RESOLUTION, 4)

    scores = score(lambda picture: bicubic.enlarge(picture, 4), pairs)

    assert round(scores.psnr, 2) == 28.42
    assert pairs.come_degraded
    # Reducing them here gives the same pictures.
    (set5, *_) = SUPER_RESOLUTION.evaluation
    chosen = evaluation_pairs(SUPER_RESOLUTION, set5, standard_data, 4)
    again = score(baseline(SUPER_RESOLUTION, 4), chosen)
    assert again == scores


def test_network_and_its_file_score_alike(
    tiny: object,
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    pairs: list[Pair],
    tmp_path: Path,
) -> None:
    module = tiny.module  # type: ignore[attr-defined]
    artifact = write_artifact(tmp_path, "onnx", "float32")
    manifest_of(artifact).write(tmp_path)
    network = score(network_restorer(module), pairs)

    with runtime.open(tmp_path / artifact.file) as session:
        whole = score(session_restorer(session), pairs)
        tiled = score(session_restorer(session, tile=16), pairs)
        difference = max_abs_diff(session, restore_with(module), [pair.low for pair in pairs])
        synthetic = max_abs_diff(session, restore_with(module))

    assert abs(psnr_loss(network, whole)) < 1e-3
    assert tiled == whole
    assert max(difference, synthetic) < 1e-5


def test_difference_of_fixed_size_artifact(
    tiny: object, write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    module = tiny.module  # type: ignore[attr-defined]
    artifact = write_artifact(tmp_path, "tflite", "float32", size=(16, 20))

    def wrong(picture: np.ndarray) -> np.ndarray:
        restored = restore_with(module)(picture).clip(0, 1)
        restored[3, 4, 1] = 1 - restored[3, 4, 1].round()  # Off by half at the least.
        return restored

    with runtime.open(tmp_path / artifact.file) as session:
        pictures = [_noise(30, 30), _noise(10, 40)]
        assert max_abs_diff(session, restore_with(module), pictures) < 1e-5
        assert max_abs_diff(session, restore_with(module), [_noise(10, 10)]) < 1e-5
        assert max_abs_diff(session, wrong, pictures) >= 0.5


def test_difference_on_picture_of_exactly_the_fixed_size(
    tiny: Any, write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    restore = restore_with(tiny.module)
    artifact = write_artifact(tmp_path, "tflite", "float32", size=(16, 20))
    picture = _noise(16, 20)
    seen: list[np.ndarray] = []

    def reference(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return restore(image)

    with runtime.open(tmp_path / artifact.file) as session:
        max_abs_diff(session, reference, [picture])

    # The picture itself, not the synthetic ones that stand in for those that are too small.
    (image,) = seen
    np.testing.assert_array_equal(image, picture / np.float32(255))


def test_network_output_is_clamped_and_rounded() -> None:
    class Shifted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 - 0.499 / 255

    picture = np.array([[[0, 100, 200]]], np.uint8)

    assert network_restorer(Shifted())(picture).tolist() == [[[0, 200, 255]]]


def test_folder_of_high_resolution_pictures_is_reduced(tmp_path: Path) -> None:
    picture = _noise(25, 31)
    folder = _save(tmp_path, a=picture)

    pairs = pairs_in(folder, SUPER_RESOLUTION, 3)
    (pair,) = pairs

    assert len(pairs) == 1
    assert np.array_equal(pair.high, picture[:24, :30])
    assert np.array_equal(pair.low, bicubic.reduce(picture[:24, :30], 3))


@pytest.mark.parametrize(
    ("lower", "suffix"), [("LRx2", ""), ("LR", ""), ("LR", "x2")], ids=["LRx2", "LR", "DIV2K"]
)
def test_given_reductions_are_used(lower: str, suffix: str, tmp_path: Path) -> None:
    _save(tmp_path / "HR", a=_noise(25, 31), b=_noise(24, 24))
    given = {"a": _noise(12, 15, 1), "b": _noise(12, 12, 2)}
    _save(tmp_path / lower, **{name + suffix: picture for name, picture in given.items()})

    found = {pair.name: pair for pair in pairs_in(tmp_path, SUPER_RESOLUTION, 2)}

    assert set(found) == {"a.png", "b.png"}
    assert np.array_equal(found["a.png"].low, given["a"])
    assert found["a.png"].high.shape == (24, 30, 3)


def test_reductions_by_another_factor_are_not_used(tmp_path: Path) -> None:
    _save(tmp_path / "HR", a=_noise(24, 24))
    _save(tmp_path / "LRx2", a=_noise(12, 12))

    (pair,) = pairs_in(tmp_path, SUPER_RESOLUTION, 4)

    assert pair.low.shape == (6, 6, 3)


@pytest.mark.parametrize(
    ("original", "reduction"),
    [
        ("box4", "box4"),  # the name ends in x4 by itself
        ("0801", "0801x4"),  # DIV2K, Flickr2K
        ("baby", "baby_x4"),  # BasicSR
        ("Canon_001_HR", "Canon_001_LR4"),  # RealSR
    ],
)
def test_reductions_are_named_as_data_sets_do(
    tmp_path: Path, original: str, reduction: str
) -> None:
    high = _noise(40, 36)
    _save(tmp_path / "HR", **{original: high, "other": _noise(40, 36, 1)})
    _save(tmp_path / "LRx4", **{reduction: _noise(10, 9, 2), "other": _noise(10, 9, 3)})

    (pair,) = (one for one in pairs_in(tmp_path, SUPER_RESOLUTION, 4) if "other" not in one.name)

    np.testing.assert_array_equal(pair.high, high)
    np.testing.assert_array_equal(pair.low, _noise(10, 9, 2))


def test_a_reduction_that_is_anothers_by_its_name_is_never_taken(tmp_path: Path) -> None:
    _save(tmp_path / "HR", fo=_noise(8, 8), fox4=_noise(8, 8, 1))
    _save(tmp_path / "LRx4", fox4=_noise(2, 2))
    with pytest.raises(UserError, match=r"no reduction of fo\.png"):
        pairs_in(tmp_path, SUPER_RESOLUTION, 4)


def test_two_reductions_of_one_picture_are_both_named(tmp_path: Path) -> None:
    _save(tmp_path / "HR", a=_noise(8, 8))
    _save(tmp_path / "LRx4", ax4=_noise(2, 2), a_x4=_noise(2, 2))
    with pytest.raises(UserError, match=r"both a_x4\.png and ax4\.png"):
        pairs_in(tmp_path, SUPER_RESOLUTION, 4)


def test_an_unknown_folder_beside_the_originals_is_named(tmp_path: Path) -> None:
    _save(tmp_path / "HR", a=_noise(8, 8))
    _save(tmp_path / "LR_bicubic", a=_noise(2, 2))
    with pytest.raises(UserError, match=r"LR_bicubic: .*LRx4 or LR"):
        pairs_in(tmp_path, SUPER_RESOLUTION, 4)


def test_missing_reduction_is_named(tmp_path: Path) -> None:
    _save(tmp_path / "HR", a=_noise(24, 24), b=_noise(24, 24))
    _save(tmp_path / "LR", a=_noise(12, 12))

    with pytest.raises(UserError, match=r"LR: holds no reduction of b\.png"):
        pairs_in(tmp_path, SUPER_RESOLUTION, 2)


def test_reduction_of_another_size_is_named(tmp_path: Path) -> None:
    _save(tmp_path / "HR", a=_noise(24, 24))
    _save(tmp_path / "LR", a=_noise(11, 12))

    with pytest.raises(UserError, match=r"a\.png: 12×11 is not a\.png \(24×24\) reduced 2 times"):
        list(pairs_in(tmp_path, SUPER_RESOLUTION, 2))


@pytest.mark.parametrize("empty", [True, False])
def test_folder_without_pictures_is_named(empty: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if empty:
        folder.mkdir()

    with pytest.raises(UserError, match="folder"):
        pairs_in(folder, SUPER_RESOLUTION, 2)


def test_pictures_smaller_than_ssims_window_have_psnr_only(pairs: list[Pair]) -> None:
    # 10 rows are left without the border.
    small = Pair.degraded("small", _noise(14, 40), SUPER_RESOLUTION, 2)

    scores = score(_enlarge, [small, pairs[0]])
    alone = score(_enlarge, [small])

    assert scores.rows[0].ssim is None
    assert math.isfinite(scores.rows[0].psnr)
    assert scores.ssim == scores.rows[1].ssim
    assert alone.ssim is None
    # One row more and there is a window.
    one_more = Pair.degraded("", _noise(16, 40), SUPER_RESOLUTION, 2)
    assert score(_enlarge, [one_more]).ssim is not None


def test_picture_of_exactly_ssims_window_has_both() -> None:
    pair = Pair.degraded("a", _noise(11, 11), SHDD["easy"], 1)  # RGB is scored without a border.

    assert score(lambda picture: picture, [pair]).ssim is not None


def test_picture_with_nothing_inside_its_border_is_refused() -> None:
    with pytest.raises(UserError, match=r"tiny: 4×40 has nothing left .* at least 5 pixels"):
        score(_enlarge, [Pair.degraded("tiny", _noise(40, 4), SUPER_RESOLUTION, 2)])


def test_picture_too_small_to_reduce_is_refused() -> None:
    with pytest.raises(UserError, match="dot: 1×1 is too small to be reduced 2 times"):
        Pair.degraded("dot", _noise(1, 1), SUPER_RESOLUTION, 2)


def test_restorer_of_another_scale_is_refused(pairs: list[Pair]) -> None:
    with pytest.raises(UserError, match=r"restored to 96×96, expected 64×64; .* ×2"):
        score(lambda picture: bicubic.enlarge(picture, 3), pairs)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="no pictures"):
        score(_enlarge, [])


def test_perfect_restoration(pairs: list[Pair]) -> None:
    originals = iter(pair.high for pair in pairs)

    scores = score(lambda _: next(originals), pairs)

    assert scores.psnr == math.inf
    assert scores.ssim == pytest.approx(1)
    assert psnr_loss(scores, scores) == 0


def test_a_picture_that_is_its_original_leaves_the_mean_of_the_others(pairs: list[Pair]) -> None:
    first, *others = pairs
    kept = dataclasses.replace(first, low=first.high, task=SHDD["easy"])
    inverted = (dataclasses.replace(one, low=255 - one.high, task=SHDD["easy"]) for one in others)

    scores = score(lambda picture: picture, [kept, *inverted])

    assert scores.rows[0].psnr == math.inf
    assert scores.psnr == pytest.approx(np.mean([row.psnr for row in scores.rows[1:]]))


def test_the_worst_picture_is_the_first_of_the_least_psnr() -> None:
    rows = [PictureScore(str(n), psnr, None) for n, psnr in enumerate((math.inf, 31, 30, 30))]
    assert Scores(30.3, None, tuple(rows)).worst.name == "2"
    assert Scores(math.inf, None, tuple(rows[:1])).worst.psnr == math.inf


def test_evaluation_pictures_are_degraded_as_their_set_says(tmp_path: Path) -> None:
    for name in ("valid", "b100/HR"):
        _save(tmp_path / name, **{f"{name[0]}{n}": _noise(12, 14, n) for n in range(3)})
    task, clean = SHDD["moderate"], SHDD["moderate"].evaluation[-1]

    pairs = list(evaluation_pairs(task, clean, tmp_path, 1))

    assert [pair.name for pair in pairs] == [
        "v0.png",
        "v1.png",
        "v2.png",
        *map("b{}.png".format, range(3)),
    ]
    assert all(np.array_equal(pair.low, pair.high) for pair in pairs)
    assert pairs[0].task.scoring == task.scoring
    message = r"valid: holds 3 pictures, SHDD easy takes 4 of it; complete the folder"
    with pytest.raises(UserError, match=message):
        evaluation_pairs(task, task.evaluation[0], tmp_path, 1)
    (tmp_path / "b100" / "HR").rename(tmp_path / "b100" / "LR")
    with pytest.raises(UserError, match=r"b100/HR: no such folder"):
        evaluation_pairs(task, clean, tmp_path, 1)


def test_loss_is_defined_on_the_same_pictures_only() -> None:
    ours, theirs = (Scores(psnr, 0.9, (PictureScore("a", psnr, 0.9),)) for psnr in (30.5, 30.4))

    assert psnr_loss(ours, theirs) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="same pictures"):
        psnr_loss(ours, Scores(30, 0.9, (PictureScore("b", 30, 0.9),)))


def test_a_fingerprint_is_of_what_pictures_show(tmp_path: Path) -> None:
    picture = _noise(12, 12, 1)
    pair = Pair.degraded("a", picture, SUPER_RESOLUTION, 2)
    same = fingerprint([pair])

    # Forms degraded here may differ in a level between machines; those that came as files may not.
    level = dataclasses.replace(pair, name="b", low=pair.low ^ 1)
    assert fingerprint([level]) == same
    assert fingerprint([dataclasses.replace(level, given=True)]) not in (
        same,
        fingerprint([dataclasses.replace(pair, given=True)]),
    )
    assert fingerprint([dataclasses.replace(pair, high=picture ^ 1)]) != same
    assert fingerprint([dataclasses.replace(pair, high=picture.reshape(9, 16, 3))]) != same
    assert fingerprint([pair, pair]) != same

    _save(tmp_path / "HR", a=picture)
    _save(tmp_path / "LR", a=pair.low)
    (given,) = pairs_in(tmp_path, SUPER_RESOLUTION, 2)
    assert given.given
    assert not pair.given
