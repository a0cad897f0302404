"""The list of tasks, and that another one needs nothing but its line in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy import baseline, score
from benchmarks.pairs import Pair
from quantize.calibration import calibration_crops
from quantize.ptq import Method
from runtime.errors import UserError
from runtime.manifest import Manifest
from runtime.pictures.files import picture_paths
from training.data.batches import draw_batches, source_of
from training.data.pictures import Picture, read_all
from training.degradations import bicubic
from training.degradations.degradation import Degradation, Degraded
from training.recipe_reading import parse_recipe
from training.run import Run
from training.stepping import train_step
from training.tasks import (
    SHDD,
    SUPER_RESOLUTION,
    TASKS,
    Task,
    restoration,
    super_resolution,
    task_of_manifest,
)
from training.validation import held_out, validate


def _compressed(picture: Picture, scale: int, random: np.random.Generator) -> Degraded:
    """Reduce a picture and compress it as JPEG of a random quality."""
    stream = io.BytesIO()
    quality = int(random.integers(70, 95))
    reduced = Image.fromarray(bicubic.reduce(picture, scale))
    reduced.save(stream, "JPEG", quality=quality, subsampling=0)
    return Degraded(np.array(Image.open(stream)))


def _noisy(picture: Picture, scale: int, random: np.random.Generator) -> Degraded:
    noise = random.normal(0, 5, picture.shape)
    return Degraded(np.clip(picture + noise, 0, 255).round().astype(np.uint8))


COMPRESSED = super_resolution(Degradation("bicubic-jpeg", _compressed, reduces=True, versions=3))
NOISY = restoration(Degradation("noise", _noisy, versions=3))
CARN = {"channels": 4, "blocks": 1, "units": 1, "scales": [2, 3]}
MEPSNET = {"family": "mepsnet", "extraction": [4], "channels": 4, "srirs": 1, "blocks": 1}


@pytest.mark.parametrize(
    ("task", "network"),
    [(COMPRESSED, CARN), (NOISY, MEPSNET)],
    ids=["two times with JPEG", "denoising"],
)
def test_another_task_needs_its_line_in_the_list_only(
    task: Task, network: dict[str, object], tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, task.name, task)  # type: ignore[arg-type]
    recipe = parse_recipe(
        {
            "name": "another",
            "network": network,
            "stages": [{"steps": 4, "patch": 8, "batch": 6}],
            "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0},
            "degradation": task.name,
            "precision": "float32",
        },
        "another",
    )
    assert recipe.task == task
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
        assert 5 < validate(run.averaged_network(), pairs, task, scale) < 60
        degraded = [
            Pair.degraded(str(index), one, task, scale) for index, one in enumerate(pictures)
        ]
        scores = score(baseline(task, scale), degraded)
        assert 20 < scores.psnr < 60
        assert scores.by_kind() == {}


def test_patches_of_whole_degraded_pictures_are_not_cut_at_any_pixel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TASKS, COMPRESSED.name, COMPRESSED)  # type: ignore[arg-type]
    content = {
        "name": "another",
        "network": CARN,
        "stages": [{"steps": 4, "patch": 8, "batch": 6}],
        "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0},
        "degradation": COMPRESSED.name,
        "any_phase": True,
    }
    with pytest.raises(UserError, match="not with 'bicubic-jpeg', which degrades whole pictures"):
        parse_recipe(content, "another")


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
        "name": "another",
        "network": MEPSNET,
        "stages": [{"steps": 4, "patch": 8, "batch": 6}],
        "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0},
        "degradation": "shdd-untouched",
    }
    with pytest.raises(UserError, match=r"expected one of bicubic, .* \(found 'shdd-untouched'\)"):
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

    easy = manifest({"recipe": {"degradation": "shdd-easy"}})
    assert task_of_manifest(easy, 1) is SHDD["easy"]
    assert task_of_manifest(manifest({"recipe": {}}, 4), 4) is SUPER_RESOLUTION
    for unknown in (None, manifest({})):
        assert task_of_manifest(unknown, 1) is SHDD["moderate"]
        assert task_of_manifest(unknown, 2) is SUPER_RESOLUTION
    with pytest.raises(UserError, match="fog: no such task; expected one of bicubic, shdd-easy"):
        task_of_manifest(manifest({"recipe": {"degradation": "fog"}}), 1)
