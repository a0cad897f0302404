"""Steps per second: every way is taken, and differs from the recipe in what its name says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.training_speed import TorchMuon, training_speed
from reslite.__main__ import main
from training import stepping as module
from training.data.batches import Batch, draw_batches, source_of
from training.networks.mepsnet import TemplateBank
from training.recipe import Recipe, parse_recipe
from training.run import Run
from training.stepping import train_step

CONTENT = {
    "name": "tiny",
    "network": {"channels": 8, "blocks": 1, "units": 1, "groups": 2, "scales": [2, 3]},
    "stages": [{"steps": 100, "patch": 8, "batch": 2}],
    "all_scales": True,
    "optimizer": {"kind": "muon", "learning_rate": 1e-3, "clip_norm": 1.0},
    "precision": "bf16",
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


def test_ways_differ_in_what_their_names_say(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, bool, bool, int]] = []
    real = module.train_step

    def spy(run: Run, batches: Sequence[Batch]) -> torch.Tensor:
        kernel = next(p for p in run.network.parameters() if p.ndim == 4 and p.shape[1] > 1)
        last = kernel.is_contiguous(memory_format=torch.channels_last)
        recipe, passes = run.recipe, []
        hook = run.network.body.register_forward_hook(lambda *_: passes.append(1))
        loss = real(run, batches)
        hook.remove()
        seen.append(
            (recipe.precision, recipe.optimizer.kind, last, recipe.masked_dense, len(passes))
        )
        return loss

    monkeypatch.setattr(module, "train_step", spy)
    rows = training_speed(parse_recipe(CONTENT, "tiny"), pictures, rounds=1, steps=1)

    assert [row.name for row in rows] == WAYS
    assert all(row.steps_per_second > 0 and row.ratio > 0 for row in rows)
    assert rows[0].ratio == 1
    # Once to warm up and once for the round.
    assert (
        seen[: len(WAYS)]
        == seen[len(WAYS) :]
        == [
            ("bf16", "muon", True, False, 1),
            ("bf16", "muon", True, False, 1),
            ("float32", "muon", False, False, 2),
            ("float32", "muon", True, False, 1),
            ("bf16", "muon", False, False, 1),
            ("bf16", "muon", True, False, 2),
            ("bf16", "adam", True, False, 1),
            ("bf16", "muon", True, True, 1),
        ]
    )


def test_the_plain_loop_steps_as_the_recipe_does(pictures: Path) -> None:
    recipe = parse_recipe({**CONTENT, "precision": "float32"}, "tiny")
    source, _ = source_of(recipe, [pictures / "train" / "noise.png"])
    ours, plain = Run.fresh(recipe), Run.fresh(recipe)
    # torch's stubs lack this overload of a module's method.
    plain.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain.optimizer = TorchMuon(plain.network, recipe.optimizer)
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
        "all_scales": False,
        "network": {"channels": 8, "blocks": 1, "units": 1, "scales": [2]},
        "optimizer": {"kind": "adam", "learning_rate": 1e-3, "clip_norm": 1.0},
    }
    recipe: Recipe = parse_recipe(plain, "tiny")

    names = [row.name for row in training_speed(recipe, pictures, rounds=1, steps=1)]

    assert names == WAYS[:5]


def test_kernels_are_mixed_together_except_where_the_name_says(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed: list[int] = []
    real = TemplateBank.mixed
    shape = {"extraction": [8], "channels": 4, "experts": 2, "srirs": 1, "blocks": 1}
    recipe: dict[str, object] = {
        **CONTENT,
        "network": {"family": "mepsnet", **shape, "templates": 3},
        "degradation": "shdd-moderate",
        "all_scales": False,
    }

    def spy(bank: TemplateBank, coefficients: torch.Tensor) -> torch.Tensor:
        mixed.append(coefficients.ndim)
        return real(bank, coefficients)

    monkeypatch.setattr(TemplateBank, "mixed", spy)
    rows = training_speed(parse_recipe(recipe, "tiny"), pictures, rounds=1, steps=1)

    assert [row.name for row in rows] == [*WAYS[:5], "kernels mixed one by one", "Adam alone"]
    one_by_one = [1, 1, 1, 1]
    assert mixed == 2 * [2, 2, *one_by_one, 2, 2, *one_by_one, 2]


def test_the_command_line_needs_real_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RESLITE_DATA", raising=False)

    assert main(["bench", "--training", "carn-m"]) == 2
    assert "set RESLITE_DATA" in capsys.readouterr().err


def test_the_command_line_prints_one_row_for_each_way(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESLITE_DATA", str(pictures))
    recipe = pictures / "tiny.yaml"
    recipe.write_text(json.dumps(CONTENT))

    assert main(["bench", "--training", str(recipe), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == WAYS
