from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training.data.batches import Batch, draw_batches, drawn_ahead, source_of
from training.degradations import bicubic, shdd
from training.recipe_reading import load_recipe
from training.run import Run
from training.stepping import GraphedSteps, revive, train_step


def test_pictures_are_shown_at_every_size_that_holds_a_patch(tmp_path: Path) -> None:
    for name, side in (("large", 96), ("small", 48), ("tiny", 40)):
        pixels = np.zeros((side, side + 10, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    changes = ["data.sizes=[1, 0.5]", "stages=[{steps: 1, patch: 12, batch: 4}]"]
    source, used = source_of(load_recipe("carn", changes), picture_paths(tmp_path))
    assert used == 2
    mirrored = 2 * source.edge
    shown = [tuple(side - mirrored for side in one.shape[:2]) for one in source.originals]
    assert shown == [(96, 106), (48, 58), (48, 53)]
    with pytest.raises(UserError, match=r"at sizes \[0.25\] none of the 3 pictures .* 48×48"):
        source_of(load_recipe("carn", ["data.sizes=[0.25]", changes[1]]), picture_paths(tmp_path))


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"sizes.0: Input should be greater than 0 \(found -1\)"):
        load_recipe("carn", ["data.sizes=[-1]"])
    for change in ("data.sizes=[1, 0.5]", "data.any_phase=true"):
        with pytest.raises(UserError, match="not with 'shdd-moderate', which degrades whole"):
            load_recipe("mepsnet-s", [change])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_as_it_does_otherwise() -> None:
    # One step: the compiler's is of other roundings.
    random, losses, kernels = torch.Generator().manual_seed(0), [], []
    windows = torch.randint(0, 256, (2, 32, 32, 3), generator=random, dtype=torch.uint8)
    for compiled in ("false", "true"):
        changes = [
            f"execution.compiled={compiled}",
            "execution.precision=float32",
            "network.blocks=1",
        ]
        run = Run.fresh(load_recipe("carn-m", [*changes, "network.units=1"]))
        losses.append(train_step(run, [Batch(2, bicubic.DEGRADATION, (windows,))]).item())
        kernels.append(run.network.get_parameter("entry.weight").detach())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(*kernels)


def test_pixels_that_nothing_befell_weigh_as_the_recipe_says() -> None:
    changes = [
        "execution.precision=float32",
        "losses.0.kind=l1",
        "losses.0.identity_weight=3",
        "network.extraction=[8]",
    ]
    small = ["channels=4", "experts=2", "srirs=1", "blocks=1", "templates=2"]
    run = Run.fresh(load_recipe("mepsnet-s", [*changes, *(f"network.{one}" for one in small)]))
    random = torch.Generator().manual_seed(0)
    original = torch.randint(0, 256, (2, 8, 8, 3), generator=random, dtype=torch.uint8)
    degraded, weights = original.clone(), torch.full((2, 8, 8), 3.0)
    degraded[:, :5] ^= 64
    weights[:, :5] = 1
    degraded[0, 6, 2, 1] ^= 1  # one channel
    weights[0, 6, 2] = 1
    with torch.no_grad():
        restored = run.network.restore_scales({1: degraded.permute(0, 3, 1, 2) / 255})[1]
        errors = (restored - original.permute(0, 3, 1, 2) / 255).abs().mean(1)
    batch = Batch(1, shdd.DEGRADATIONS["moderate"], (original, degraded))
    torch.testing.assert_close(train_step(run, [batch]), (weights * errors).mean())


def test_gradients_are_no_longer_than_the_recipe_allows() -> None:
    random, norms = torch.Generator().manual_seed(0), []
    windows = torch.randint(0, 256, (2, 32, 32, 3), generator=random, dtype=torch.uint8)
    for longest in ("1e-3", "1e6"):
        changes = [
            f"optimizer.clip_norm={longest}",
            "execution.precision=float32",
            "network.blocks=1",
        ]
        run = Run.fresh(load_recipe("carn-m", [*changes, "network.channels=8"]))
        train_step(run, [Batch(2, bicubic.DEGRADATION, (windows,))])
        gradients = [one.grad for one in run.network.parameters() if one.grad is not None]
        norms.append(torch.cat([one.flatten() for one in gradients]).norm().item())
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert norms[1] > 2e-3


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
        f"method.all_scales={all_scales}".lower(),
        "execution.precision=float32",
        "method.scale_weights={2: 1, 3: 1, 4: 2}",
        "optimizer.large_kernels_every=2",
        "losses.0.kind=rmse",
        "losses.0.luma=0.9",
        "stages=[{steps: 30, patch: 8, batch: 4}, {steps: 10, patch: 12, batch: 4}]",
    ]
    recipe = load_recipe(str(tiny_recipe), changes)
    source, _ = source_of(recipe, picture_paths(tiny_data / "train"))
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
