"""Steps per second: every way is taken, and differs from the recipe in what its name says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.training_speed import Way, training_speed, ways_of
from reslite.__main__ import main
from training.data.batches import draw_batches, source_of
from training.networks.mepsnet import TemplateBank
from training.recipe import Recipe
from training.recipe_reading import parse_recipe
from training.run import Run
from training.stepping import train_step

CONTENT = {
    "version": 2,
    "name": "tiny",
    "network": {"channels": 8, "blocks": 1, "units": 1, "groups": 2, "scales": [2, 3]},
    "stages": [{"steps": 100, "patch": 8, "batch": 2}],
    "method": {"all_scales": True},
    "optimizer": {"kind": "muon", "learning_rate": 1e-3, "clip_norm": 1.0},
    "execution": {"precision": "bf16"},
}
WAYS = [
    "the recipe",
    "batches kept in memory",
    "plain float32 loop",
    "in float32",
    "without channels_last",
    "one scale after another",
    "Adam alone",
    "masked dense convolutions",
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of data with one generated training picture."""
    (tmp_path / "train").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "train" / "noise.png")
    return tmp_path


def test_ways_differ_in_what_their_names_say() -> None:
    recipe = parse_recipe(CONTENT, "tiny")
    adam = recipe.optimizer.model_copy(update={"kind": "adam"})

    plain = {"channels_last": False, "joint_pass": False, "graphs": False, "torch_muon": True}
    assert ways_of(recipe, "cpu") == [
        Way("the recipe", recipe),
        Way("batches kept in memory", recipe, batches_kept=True),
        Way("plain float32 loop", recipe.with_execution(precision="float32"), **plain),
        Way("in float32", recipe.with_execution(precision="float32")),
        Way("without channels_last", recipe, channels_last=False),
        Way("one scale after another", recipe, joint_pass=False),
        Way("Adam alone", recipe.model_copy(update={"optimizer": adam})),
        Way("masked dense convolutions", recipe.with_execution(masked_dense=True)),
    ]
    assert [way.name for way in ways_of(recipe.with_execution(masked_dense=True), "cuda")] == [
        *WAYS[:5],
        "without CUDA graphs",
        *WAYS[5:7],
        "grouped convolutions",
    ]
    assert (
        ways_of(recipe.with_execution(masked_dense=True), "cpu")[2].recipe.execution.masked_dense
        is False
    )


def test_every_way_is_measured_against_the_recipe(pictures: Path) -> None:
    rows = training_speed(parse_recipe(CONTENT, "tiny"), pictures, rounds=1, steps=1)

    assert [row.name for row in rows] == WAYS
    assert all(row.steps_per_second > 0 and row.ratio > 0 for row in rows)
    assert rows[0].ratio == 1


@pytest.mark.parametrize("joint_pass", [True, False])
def test_scales_pass_the_body_together_or_one_after_another(
    pictures: Path, joint_pass: bool
) -> None:
    recipe = parse_recipe(CONTENT, "tiny")
    source, _ = source_of(recipe, [pictures / "train" / "noise.png"])
    run = Way("", recipe, joint_pass=joint_pass).begin("cpu")
    passes: list[int] = []
    run.network.body.register_forward_hook(lambda *_: passes.append(1))
    train_step(run, draw_batches(recipe, source, 0))
    assert len(passes) == (1 if joint_pass else 2)


@pytest.mark.parametrize("channels_last", [True, False])
def test_kernels_lie_in_memory_as_the_way_says(channels_last: bool) -> None:
    run = Way("", parse_recipe(CONTENT, "tiny"), channels_last=channels_last).begin("cpu")
    kernel = run.network.entry.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert kernel.is_contiguous() != channels_last


def test_the_plain_loop_steps_as_the_recipe_does(pictures: Path) -> None:
    recipe = parse_recipe({**CONTENT, "execution": {"precision": "float32"}}, "tiny")
    source, _ = source_of(recipe, [pictures / "train" / "noise.png"])
    ours = Run.fresh(recipe)
    plain = Way("", recipe, channels_last=False, torch_muon=True).begin("cpu")
    before = {name: value.clone() for name, value in plain.average.items()}
    for step in range(3):
        for run in (ours, plain):
            train_step(run, draw_batches(recipe, source, step))
    for name, parameter in plain.network.named_parameters():
        difference = parameter.detach() - ours.network.get_parameter(name).detach()
        # torch's Muon iterates in bfloat16.
        assert difference.norm() < 0.1 * (parameter.detach() - before[name]).norm(), name


def test_ways_that_a_recipe_does_not_have_are_left_out(pictures: Path) -> None:
    plain: dict[str, object] = {
        **CONTENT,
        "method": {},
        "network": {"channels": 8, "blocks": 1, "units": 1, "scales": [2]},
        "optimizer": {"kind": "adam", "learning_rate": 1e-3, "clip_norm": 1.0},
    }
    recipe: Recipe = parse_recipe(plain, "tiny")

    names = [row.name for row in training_speed(recipe, pictures, rounds=1, steps=1)]

    assert names == WAYS[:5]


def test_kernels_are_mixed_together_except_where_the_name_says(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"extraction": [8], "channels": 4, "experts": 2, "srirs": 1, "blocks": 1}
    content: dict[str, object] = {
        **CONTENT,
        "network": {"family": "mepsnet", **shape, "templates": 3},
        "degradation": [{"kind": "shdd", "level": "moderate"}],
        "method": {},
    }
    recipe, mixed = parse_recipe(content, "tiny"), []
    source, _ = source_of(recipe, [pictures / "train" / "noise.png"])
    real = TemplateBank.mixed

    def spy(bank: TemplateBank, coefficients: torch.Tensor) -> torch.Tensor:
        mixed.append(coefficients.ndim)
        return real(bank, coefficients)

    monkeypatch.setattr(TemplateBank, "mixed", spy)
    ways = {way.name: way for way in ways_of(recipe, "cpu")}
    assert list(ways) == [*WAYS[:5], "kernels mixed one by one", "Adam alone"]
    for name, counts in (("the recipe", [2]), ("kernels mixed one by one", [1, 1, 1, 1])):
        mixed.clear()
        train_step(ways[name].begin("cpu"), draw_batches(recipe, source, 0))
        assert mixed == counts


def test_the_command_line_needs_real_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RESLITE_DATA", raising=False)

    assert main(["bench-training", "carn-m"]) == 2
    assert "set RESLITE_DATA" in capsys.readouterr().err


def test_the_command_line_prints_one_row_for_each_way(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESLITE_DATA", str(pictures))
    recipe = pictures / "tiny.yaml"
    recipe.write_text(json.dumps(CONTENT))

    assert main(["bench-training", str(recipe), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == WAYS
