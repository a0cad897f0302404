from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training.catalogue import find_model
from training.data.batches import Batch, draw_batches, source_of
from training.degradations import bicubic
from training.networks.carn import CarnConfig
from training.networks.mepsnet import MepsnetConfig
from training.reach import excess, watched
from training.recipe import load_recipe
from training.run import Run
from training.stepping import train_step
from training.trainer import train

_SATURATION = "saturation={patches: 3, weight: 0.5, reach: 0.25}"


def test_excess_is_what_channels_exceed_on_average_and_half_of_the_farthest() -> None:
    photographed = torch.zeros(2, 2, 3, 3)
    photographed[1, 0, 2, 2] = -2.0
    coloured = torch.zeros(1, 2, 3, 3)
    coloured[0, 0, 1, 1], coloured[0, 1, 0, 0] = 2.0, -5.0
    assert float(excess([coloured], [photographed])) == (0 + 1.5) / 2 + 1.5 / 2
    assert float(excess([coloured] * 2, [photographed] * 2)) == 3
    assert float(excess([photographed], [photographed])) == 0


def test_photographs_are_not_drawn_to_what_saturated_colours_reach() -> None:
    coloured, photographed = (torch.full((1, 1, 2, 2), by, requires_grad=True) for by in (3.0, 2.0))
    excess([coloured], [photographed]).backward()  # type: ignore[no-untyped-call]
    assert photographed.grad is None
    assert coloured.grad is not None
    assert float(coloured.grad.sum()) > 0


def test_activations_are_watched_in_the_order_of_their_making_and_no_longer() -> None:
    network = CarnConfig(channels=4, blocks=1, units=1, scales=(2,)).build()
    picture = torch.rand(1, 3, 8, 8)
    with watched(network) as seen:
        network(picture, 2)
    torch.testing.assert_close(seen[0], network.entry(picture - network.means))
    # Entry; in the block its ReLU, itself and the cascade around it; the body; the upsampler.
    assert [tuple(one.shape[1:]) for one in seen] == [(4, 8, 8)] * 5 + [(16, 8, 8)]
    network(picture, 2)
    assert len(seen) == 6


def test_networks_of_relus_are_watched_behind_them() -> None:
    small = MepsnetConfig(extraction=(8,), channels=4, experts=2, srirs=1, blocks=1, templates=2)
    with watched(network := small.build()) as seen:
        network(torch.rand(1, 3, 8, 8), 1)
    assert seen
    assert all(float(one.min()) >= 0 for one in seen)


@pytest.fixture
def taught(tmp_path: Path, tiny_recipe: Path, tiny_data: Path) -> list[str]:
    """Changes that teach the tiny recipe's network by another one, in saturated colours, too."""
    teacher = train(load_recipe(str(tiny_recipe)), tiny_data, tmp_path / "teacher", progress=False)
    return [f"teacher={teacher}", _SATURATION, "precision=float32"]


def test_saturated_patches_accompany_those_of_every_scale(
    tiny_recipe: Path, tiny_data: Path, taught: list[str]
) -> None:
    recipe = load_recipe(str(tiny_recipe), taught)
    source, _ = source_of(recipe, picture_paths(tiny_data / "train"))
    drawn, again = (draw_batches(recipe, source, 7) for _ in range(2))
    plain = draw_batches(load_recipe(str(tiny_recipe)), source, 7)
    assert [one.scale for one in drawn] == [one.scale for one in plain] * 2
    for one, other in zip(plain, drawn, strict=False):
        torch.testing.assert_close(one.low, other.low)
    for one, other in zip(drawn, again, strict=True):
        torch.testing.assert_close(one.low, other.low)
    side = recipe.stage_at(7).patch
    assert all(tuple(one.low.shape) == (3, side, side, 3) for one in drawn[len(plain) :])


def test_the_loss_is_the_distance_from_what_the_teacher_restores(
    tiny_recipe: Path, taught: list[str]
) -> None:
    recipe = load_recipe(str(tiny_recipe), [*taught, "loss=l1", "luma=0"])
    run, scale = Run.fresh(recipe), recipe.network.scales[0]
    random = torch.Generator().manual_seed(0)
    windows = torch.randint(0, 256, (2, 32, 32, 3), generator=random, dtype=torch.uint8)
    photographs = Batch(scale, bicubic.DEGRADATION, (windows,))
    low = torch.randint(0, 2, (3, 8, 8, 3), generator=random, dtype=torch.uint8) * 255
    saturated = Batch(scale, bicubic.DEGRADATION, (low,), saturated=True)
    teacher = find_model(taught[0].removeprefix("teacher=")).network()

    def shown(batch: Batch) -> Tensor:
        return batch.low.permute(0, 3, 1, 2) / 255

    with torch.no_grad():
        with watched(run.network) as usual:
            restored = run.network(shown(photographs), scale)
        with watched(run.network) as coloured:
            bright = run.network(shown(saturated), scale)
        apart = [
            (ours - teacher(shown(batch), scale).clamp(0, 1)).abs().mean()
            for batch, ours in ((photographs, restored), (saturated, bright.clamp(0, 1)))
        ]
        expected = apart[0] + 0.5 * apart[1] + 0.25 * excess(coloured, usual)
    torch.testing.assert_close(train_step(run, [photographs, saturated]), expected)


def test_a_run_says_who_taught_it(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path, taught: list[str]
) -> None:
    weights = train(load_recipe(str(tiny_recipe), taught), tiny_data, tmp_path / "out", False)
    teacher = find_model(taught[0].removeprefix("teacher="))
    assert find_model(str(weights)).training["teacher"] == teacher.sha256


def test_saturation_and_teachers_that_make_no_sense_are_refused(
    tiny_recipe: Path, taught: list[str]
) -> None:
    for changes in ([_SATURATION], [*taught, "compiled=true"]):
        with pytest.raises(UserError, match="saturation goes with a teacher"):
            load_recipe(str(tiny_recipe), changes)
    recipe = load_recipe("carn-m", ["teacher=mepsnet-s"])
    with pytest.raises(UserError, match="mepsnet-s: restores at ×1, recipe 'carn-m' also at ×2"):
        Run.fresh(recipe)
