from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.batches import draw_batches, drawn_ahead, source_of
from training.pictures import picture_paths
from training.recipe import load_recipe
from training.run import Run
from training.step import GraphedSteps, revive, train_step


def test_what_is_drawn_ahead_comes_in_order() -> None:
    for count in (0, 1, 5, 50):
        assert list(drawn_ahead(lambda step: step * step, range(3, 3 + count), 4)) == [
            step * step for step in range(3, 3 + count)
        ]


def test_what_fails_on_another_thread_is_told_in_its_turn() -> None:
    drawn = drawn_ahead(lambda step: 1 // (3 - step), range(10), 2)
    assert [next(drawn) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(drawn)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("all_scales", [True, False])
def test_replayed_steps_are_those_that_are_taken_one_by_one(
    tiny_recipe: Path, tiny_data: Path, kind: str, all_scales: bool
) -> None:
    changes = [
        f"optimizer.kind={kind}",
        f"all_scales={all_scales}".lower(),
        "precision=float32",
        "scale_weights={2: 1, 3: 1, 4: 2}",
        "stages=[{steps: 30, patch: 8, batch: 4}, {steps: 10, patch: 12, batch: 4}]",
    ]
    recipe = load_recipe(str(tiny_recipe), changes)
    source = source_of(recipe, picture_paths(tiny_data / "train"))
    runs = [Run.fresh(recipe, "cuda") for _ in range(2)]
    graphed = GraphedSteps(runs[1])
    for step in range(recipe.steps):
        if step == 20:
            assert revive(runs[0], source) == revive(runs[1], source)
        batches = draw_batches(recipe, source, step)
        expected = train_step(runs[0], batches).item()
        assert graphed(batches).item() == pytest.approx(expected, rel=1e-2), step
    ours, theirs = runs[1].average, runs[0].average
    for name, start in Run.fresh(recipe, "cuda").average.items():
        moved = (theirs[name] - start).norm()
        assert (ours[name] - theirs[name]).norm() <= 0.05 * moved, name
