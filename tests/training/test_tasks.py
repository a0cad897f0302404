"""The list of tasks, and that another one needs nothing but its line in it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from benchmarks.accuracy import baseline, score
from benchmarks.pairs import Pair
from quantize.calibration import calibration_crops
from quantize.ptq import Method
from runtime.errors import UserError
from runtime.manifest import Manifest
from runtime.pictures.files import picture_paths
from training.data.batches import draw_batches, source_of
from training.data.pictures import read_all
from training.degradations.bicubic import Bicubic
from training.degradations.degradation import version_random
from training.degradations.jpeg import Jpeg
from training.degradations.kinds import in_a_row
from training.degradations.noise import Noise
from training.recipe_reading import parse_recipe
from training.run import Run
from training.stepping import train_step
from training.tasks import (
    SHDD,
    SUPER_RESOLUTION,
    TASKS,
    Task,
    task_of_manifest,
)
from training.validation import held_out, validate

COMPRESSED = [{"kind": "bicubic"}, {"kind": "jpeg", "least": 70, "largest": 95, "chroma": "4:4:4"}]
NOISY = [{"kind": "noise", "least": 5, "largest": 5}]
CARN = {"channels": 4, "blocks": 1, "units": 1, "scales": [2, 3]}
MEPSNET = {"family": "mepsnet", "extraction": [4], "channels": 4, "srirs": 1, "blocks": 1}


@pytest.mark.parametrize(
    ("degradation", "network", "name"),
    [(COMPRESSED, CARN, "bicubic+jpeg-70-95"), (NOISY, MEPSNET, "noise-5-5")],
    ids=["two times with JPEG", "denoising"],
)
def test_any_degradation_of_a_recipe_makes_a_task(
    degradation: list[object], network: dict[str, object], name: str, tiny_data: Path
) -> None:
    recipe = parse_recipe(
        {
            "version": 2,
            "name": "another",
            "network": network,
            "stages": [{"steps": 4, "patch": 8, "batch": 6}],
            "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0},
            "degradation": degradation,
            "execution": {"precision": "float32"},
        },
        "another",
    )
    task = recipe.task
    assert task.name == name
    paths = picture_paths(tiny_data / "train")
    source, _ = source_of(recipe, paths)
    run = Run.fresh(recipe)
    for step in range(4):
        (batch,) = batches = draw_batches(recipe, source, step)
        assert batch.low.shape == (6, 8, 8, 3)
        assert batch.high.shape == (6, 8 * batch.scale, 8 * batch.scale, 3)
        blocks = batch.high.view(6, 8, batch.scale, 8, batch.scale, 3).float().mean((2, 4))
        # The patch and its original are of one place, but not equal.
        apart, beside = ((one - batch.low).abs().mean() for one in (blocks, blocks.roll(1, 1)))
        assert 1 < apart < beside / 2
        assert torch.isfinite(train_step(run, batches))
    for scale in recipe.network.scales:
        (crop,) = calibration_crops(paths, task, scale, count=1, size=12)
        assert crop.shape == (12, 12, 3)
        pictures = read_all(paths)
        pairs = held_out(recipe, pictures, scale)
        assert 5 < validate(run.averaged_network(), pairs, task, scale)["psnr"] < 60
        degraded = [
            Pair.degraded(str(index), one, task, scale) for index, one in enumerate(pictures)
        ]
        scores = score(baseline(task, scale), degraded)
        assert 20 < scores.psnr < 60
        assert scores.by_kind() == {}


def test_patches_of_whole_degraded_pictures_are_not_cut_at_any_pixel() -> None:
    content = {
        "version": 2,
        "name": "another",
        "network": CARN,
        "data": {"any_phase": True},
        "stages": [{"steps": 4, "patch": 8, "batch": 6}],
        "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0},
        "degradation": COMPRESSED,
    }
    with pytest.raises(UserError, match=r"not with 'bicubic\+jpeg-70-95', which degrades whole"):
        parse_recipe(content, "another")


def test_pictures_are_reduced_once() -> None:
    with pytest.raises(ValueError, match="only one step may reduce pictures"):
        in_a_row((Bicubic(), Bicubic()))


def test_noise_and_jpeg_are_as_strong_as_asked() -> None:
    grey = np.full((96, 96, 3), 128, np.uint8)
    noisy = Noise(least=9, largest=9).degradation().degrade(grey, 1, version_random(0, 0, 0))
    assert np.std(noisy.pixels - 128.0) == pytest.approx(9, rel=0.03)
    edges = (np.indices((96, 96)).sum(0)[..., None] // 5 % 2 * np.full(3, 255)).astype(np.uint8)
    errors = [
        np.square(
            Jpeg(least=one, largest=one)
            .degradation()
            .degrade(edges, 1, version_random(0, 0, 0))
            .pixels
            - edges.astype(float)
        ).mean()
        for one in (95, 50, 10)
    ]
    assert errors == sorted(errors)
    for kind in (Noise, Jpeg):
        with pytest.raises(ValueError, match="is larger than largest"):
            kind(least=9, largest=3)


def test_every_task_is_listed_by_the_name_of_its_degradation() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
    assert list(TASKS) == ["bicubic", "shdd-easy", "shdd-moderate", "shdd-difficult"]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_tasks_name_what_exists_elsewhere(task: Task) -> None:
    assert task.range_method in get_args(Method)
    levels = {one.name for one in SHDD.values()}
    assert {one.degradation.name for one in task.evaluation} <= {*TASKS, *levels}


def test_no_network_is_trained_on_untouched_pictures_alone() -> None:
    assert SHDD["untouched"].name == "shdd-untouched"
    content = {
        "version": 2,
        "name": "another",
        "network": MEPSNET,
        "stages": [{"steps": 4, "patch": 8, "batch": 6}],
        "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0},
        "degradation": [{"kind": "shdd", "level": "untouched"}],
    }
    with pytest.raises(UserError, match="level: Input should be 'easy', 'moderate' or 'difficult'"):
        parse_recipe(content, "another")


def test_a_split_is_one_set_or_all_that_are_scored_together() -> None:
    levels = ["shdd-easy", "shdd-moderate", "shdd-difficult", "clean"]
    assert [one.name for one in SHDD["easy"].sets_named("shdd-test")] == levels
    assert [one.name for one in SHDD["easy"].sets_named("clean")] == ["clean"]
    assert [one.title for one in SUPER_RESOLUTION.sets_named("set14")] == ["Set14"]
    with pytest.raises(UserError) as error:
        SUPER_RESOLUTION.sets_named("shdd-test")
    assert str(error.value) == (
        "shdd-test: no such split of 'bicubic'; expected one of set5, set14, b100"
    )
    with pytest.raises(UserError, match=f"expected one of shdd-test, {', '.join(levels)}$"):
        SHDD["easy"].sets_named("set5")


def test_the_manifest_tells_the_task_of_a_file_and_else_its_scale_does() -> None:
    def manifest(training: dict[str, object], scale: int = 1) -> Manifest:
        return Manifest("carn", scale, 8, "0" * 64, training, {}, ())

    easy = [{"kind": "shdd", "level": "easy"}]
    for degradation in ("shdd-easy", easy):  # as recipes of version 1 and 2 spell it
        assert (
            task_of_manifest(manifest({"recipe": {"degradation": degradation}}), 1) is SHDD["easy"]
        )
    noisy = manifest({"recipe": {"version": 2, "degradation": NOISY}})
    assert task_of_manifest(noisy, 1).name == "noise-5-5"
    assert task_of_manifest(manifest({"recipe": {}}, 4), 4) is SUPER_RESOLUTION
    for unknown in (None, manifest({})):
        assert task_of_manifest(unknown, 1) is SHDD["moderate"]
        assert task_of_manifest(unknown, 2) is SUPER_RESOLUTION
    with pytest.raises(UserError, match=r"this version of reslite does not know .*fog"):
        task_of_manifest(manifest({"recipe": {"degradation": "fog"}}), 1)
