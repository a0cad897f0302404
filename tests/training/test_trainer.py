from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.report.curves import read_curves
from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training import trainer
from training.catalogue import find_model
from training.checkpoint import load_tensors, save_tensors
from training.data.batches import Batch, draw_batches
from training.data.patches import PatchSource
from training.data.pictures import read_all
from training.data.versions import patch_source
from training.degradations import bicubic
from training.methods.supervised import Supervised
from training.optimization import Optimizer
from training.recipe import Recipe
from training.recipe_reading import load_recipe
from training.run import Run
from training.run_folder import CHECKPOINT, PREVIOUS, WEIGHTS
from training.stepping import train_step
from training.trainer import train
from training.validation import held_out, validate


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / WEIGHTS)[0]


def _assert_same_weights(one: Path, other: Path) -> None:
    weights, others = _weights(one), _weights(other)
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.equal(weights[name], others[name]), name


@pytest.fixture
def whole(tmp_path: Path, command: Callable[..., list[str]]) -> Path:
    """The folder of a run that never stopped."""
    subprocess.run(command(tmp_path / "whole"), check=True)
    return tmp_path / "whole"


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_with_the_weights_of_one_never_stopped(
    tmp_path: Path, command: Callable[..., list[str]], whole: Path
) -> None:
    killed = subprocess.Popen(command(tmp_path / "killed"))
    while not (tmp_path / "killed" / CHECKPOINT).exists():
        assert killed.poll() is None, "training ended before its first checkpoint"
        time.sleep(0.001)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / WEIGHTS).exists(), "the run was over before it was killed"
    subprocess.run(command(tmp_path / "killed"), check=True)
    _assert_same_weights(tmp_path / "killed", whole)


@pytest.mark.slow
@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_the_steps_done_and_the_same_command_goes_on(
    tmp_path: Path, command: Callable[..., list[str]], whole: Path, one: signal.Signals
) -> None:
    process = subprocess.Popen(
        command(tmp_path / "run"),
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "run" / CHECKPOINT).exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(one)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert "oneDNN" not in errors, "TensorBoard brought TensorFlow and its messages in"
    assert 4 <= int(load_tensors(tmp_path / "run" / CHECKPOINT)[1]["step"]) < 40
    subprocess.run(command(tmp_path / "run"), check=True)
    _assert_same_weights(tmp_path / "run", whole)


def test_a_step_that_fails_leaves_the_checkpoint_before_it(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    train(recipe, tiny_data, tmp_path / "whole", progress=False)
    calls = iter(range(1000))

    def step_kernels(self: Optimizer, rate: float, turn: int) -> None:
        if next(calls) == 10:  # Adam has stepped already
            raise MemoryError

    with monkeypatch.context() as patches, pytest.raises(MemoryError):
        patches.setattr(Optimizer, "_step_kernels", step_kernels)
        train(recipe, tiny_data, tmp_path / "run", progress=False)
    assert load_tensors(tmp_path / "run" / CHECKPOINT)[1]["step"] == "8"
    train(recipe, tiny_data, tmp_path / "run", progress=False)
    _assert_same_weights(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_run_stops_at_the_first_loss_that_is_not_finite(
    tmp_path: Path, tiny_data: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Checkpoints come every four steps; after nine a parameter is infinite, so step 10 fails.
    def taker(run: Run) -> Callable[..., torch.Tensor]:
        def step(batches: Any) -> torch.Tensor:
            loss = train_step(run, batches)
            if run.step == 9:
                with torch.no_grad():
                    next(run.network.parameters()).fill_(torch.inf)
            return loss

        return step

    monkeypatch.setattr(trainer, "step_taker", taker)
    out = tmp_path / "run"

    with pytest.raises(UserError, match=r"step 10: the loss is not finite.*learning_rate"):
        train(load_recipe(str(tiny_recipe)), tiny_data, out, progress=False)

    steps = {name: load_tensors(out / name)[1]["step"] for name in (CHECKPOINT, PREVIOUS)}
    assert steps == {CHECKPOINT: "8", PREVIOUS: "4"}
    assert not (out / WEIGHTS).exists()
    monkeypatch.undo()
    assert train(load_recipe(str(tiny_recipe)), tiny_data, out, progress=False).exists()


@pytest.mark.slow
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_checkpoint_with_values_that_are_not_finite_is_neither_written_nor_resumed(
    tmp_path: Path, tiny_recipe: Path, value: float
) -> None:
    recipe, path = load_recipe(str(tiny_recipe)), tmp_path / CHECKPOINT
    run = Run.begin(recipe)
    run.save(path)
    name = next(iter(run.average))
    run.average[name].fill_(value)
    with pytest.raises(UserError, match="not finite"):
        run.save(path)
    assert Run.resume(path, recipe).step == 0

    tensors, metadata = load_tensors(path)
    save_tensors(path, {**tensors, f"average.{name}": run.average[name]}, metadata)
    with pytest.raises(UserError, match=rf"not finite.*{PREVIOUS}"):
        Run.resume(path, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 4])
def test_held_out_pictures_without_pixels_inside_the_border_are_left_out_and_named(
    tmp_path: Path,
    tiny_data: Path,
    tiny_recipe: Path,
    side: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    Image.new("RGB", (side, 40), "red").save(data / "valid" / "small.png")

    train(load_recipe(str(tiny_recipe)), data, tmp_path / "run", progress=False)

    said = "".join(capsys.readouterr())
    assert "left out: small.png" in said
    scores = [float(line.split()[-2]) for line in said.splitlines() if line.endswith(" dB")]
    assert scores and np.isfinite(scores).all()
    for path in (data / "valid").glob("[0-9]*.png"):
        path.unlink()
    with pytest.raises(UserError, match="all pictures are too small"):
        train(load_recipe(str(tiny_recipe)), data, tmp_path / "other", progress=False)


def test_a_validation_that_was_interrupted_is_made_up_for_and_none_is_lost(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_recipe), ["validation.every=10", "network.scales=[2]"])
    interrupted = iter([False, True, False, True])

    def validated(*arguments: Any) -> float:
        if next(interrupted, False):
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(trainer, "validate", validated)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny_data, tmp_path, progress=False)
        time.sleep(1.1)  # TensorBoard reads logs in the order of their names, which tell the second
    weights = train(recipe, tiny_data, tmp_path, progress=False)
    (curve,) = read_curves(tmp_path)
    assert len(curve.psnr) == len(curve.seconds) == 4
    assert list(curve.seconds) == sorted(curve.seconds)
    pairs = held_out(recipe, read_all(picture_paths(tiny_data / "valid")), 2)
    final = validate(find_model(str(weights)).network(), pairs, recipe.task, 2)["psnr"]
    assert curve.psnr[-1] == pytest.approx(final, abs=1e-3)


def test_a_run_is_not_resumed_as_another_one(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = train(load_recipe(str(tiny_recipe)), tiny_data, tmp_path, progress=False)
    before = weights.read_bytes()
    other = load_recipe(str(tiny_recipe), ["seed=4", "losses.0.kind=l2", "optimizer.kind=muon"])
    with pytest.raises(
        UserError, match=r"another losses, seed, optimizer\.kind than recipe 'tiny'"
    ):
        train(other, tiny_data, tmp_path, progress=False)
    shorter = load_recipe(str(tiny_recipe), ["stages=[{steps: 6, patch: 8, batch: 2}]"])
    with pytest.raises(UserError, match="holds a run of 40 steps, more than the recipe's 6"):
        train(shorter, tiny_data, tmp_path, progress=False)
    capsys.readouterr()
    assert train(load_recipe(str(tiny_recipe)), tiny_data, tmp_path, progress=False) == weights
    assert "already finished: 40 steps" in capsys.readouterr().out
    assert weights.read_bytes() == before

    longer = load_recipe(str(tiny_recipe), ["stages=[{steps: 44, patch: 8, batch: 2}]"])
    train(longer, tiny_data, tmp_path, progress=False)
    assert "resumed after step 40" in capsys.readouterr().out
    assert find_model(str(weights)).training["steps"] == 44


def _batch(recipe: Recipe, source: PatchSource, step: int) -> Batch:
    (batch,) = draw_batches(recipe, source, step)
    return batch


def _source(recipe: Recipe, data: Path) -> PatchSource:
    pictures = read_all(picture_paths(data / "train"))
    return patch_source(pictures, bicubic.DEGRADATION, recipe.network.scales, recipe.seed)


def test_training_improves_the_network(tmp_path: Path, tiny_data: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "version": 2,
            "name": "plain",
            "network": {"channels": 16, "blocks": 1, "units": 1, "scales": [2]},
            "stages": [{"steps": 150, "patch": 12, "batch": 4}],
            "optimizer": {"learning_rate": 0.005, "clip_norm": 1.0, "warmup": 5, "ema": 0.9},
        }
    )
    pairs = held_out(recipe, read_all(picture_paths(tiny_data / "valid")), 2)
    before = validate(Run.fresh(recipe).averaged_network(), pairs, recipe.task, 2)["psnr"]

    weights = train(recipe, tiny_data, tmp_path, progress=False)

    model = find_model(str(weights))
    assert model.training["steps"] == 150
    assert validate(model.network(), pairs, recipe.task, 2)["psnr"] > before + 2
    assert list(tmp_path.glob("events.out.tfevents*"))


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_a_run_begins_with_the_weights_it_is_told_and_says_so(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path, kind: str
) -> None:
    first = train(load_recipe(str(tiny_recipe)), tiny_data, tmp_path / "first", progress=False)
    changes = [
        f"start={first}",
        f"optimizer.kind={kind}",
        "stages=[{steps: 2, patch: 8, batch: 1}]",
    ]
    recipe = load_recipe(str(tiny_recipe), [*changes, "optimizer.learning_rate=1.0e-9"])
    second = train(recipe, tiny_data, tmp_path / "second", progress=False)
    ours, theirs = _weights(tmp_path / "second"), _weights(tmp_path / "first")
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)
    (started,) = find_model(str(second)).training["start"]
    assert (started["sha256"], started["steps"]) == (find_model(str(first)).sha256, 40)

    other = load_recipe(str(tiny_recipe), [f"start={first}", "network.units=1"])
    with pytest.raises(UserError, match="is of another network"):
        train(other, tiny_data, tmp_path / "third", progress=False)


def test_a_run_begins_with_the_mean_of_several_weights(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path
) -> None:
    first, second = (
        train(load_recipe(str(tiny_recipe), [f"seed={seed}"]), tiny_data, tmp_path / seed, False)
        for seed in "12"
    )
    run = Run.begin(load_recipe(str(tiny_recipe), [f"start=[{first}, {first}, {second}]"]))
    one, other = (_weights(tmp_path / seed) for seed in "12")
    for name, average in run.average.items():
        mean = torch.stack([one[name], one[name], other[name]]).double().mean(0)
        torch.testing.assert_close(average.double(), mean, atol=1e-7, rtol=1e-6)
    hashes = [find_model(str(file)).sha256 for file in (first, second)]
    assert [record["sha256"] for record in run.start] == hashes


def test_a_step_draws_the_same_batch_every_time_and_aligned_pairs(
    tiny_recipe: Path, tiny_data: Path
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    source = _source(recipe, tiny_data)
    scales = set()
    for step in range(12):
        batch = _batch(recipe, source, step)
        scale, low, high = batch.scale, batch.low.numpy(), batch.high.numpy()
        again = _batch(recipe, source, step)
        assert scale == again.scale
        np.testing.assert_array_equal(high, again.high.numpy())
        assert high.shape[1] == scale * low.shape[1]
        # The average of each high-resolution block is near the pixel it was reduced to.
        blocks = high.reshape(2, 8, scale, 8, scale, 3).mean((2, 4))
        assert np.abs(blocks - low).mean() < 3
        scales.add(scale)
    assert scales == {2, 3, 4}
    first, second = (_batch(recipe, source, step).low for step in (0, 1))
    assert not torch.equal(first, second)


def test_scale_weights_choose_the_scale(tiny_recipe: Path, tiny_data: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    only_three = recipe.model_copy(
        update={"method": Supervised(scale_weights={2: 0.0, 3: 1.0, 4: 0.0})}
    )
    source = _source(recipe, tiny_data)
    assert {_batch(only_three, source, step).scale for step in range(5)} == {3}


def test_a_step_of_all_scales_shares_its_batch_and_its_loss(
    tiny_recipe: Path, tiny_data: Path
) -> None:
    changes = [
        "method.all_scales=true",
        "method.scale_weights={2: 1, 3: 1, 4: 2}",
        "stages=[{steps: 5, patch: 8, batch: 8}]",
        "execution.precision=float32",
        "optimizer.clip_norm=1.0e+9",
    ]
    recipe = load_recipe(str(tiny_recipe), changes)
    batches = draw_batches(recipe, _source(recipe, tiny_data), 0)
    assert [(one.scale, len(one.low), one.weight) for one in batches] == [
        (2, 2, 0.25),
        (3, 2, 0.25),
        (4, 4, 0.5),
    ]

    run, other = Run.fresh(recipe), Run.fresh(recipe)
    loss = train_step(run, batches)
    expected = sum(one.weight * _l1(other, one) for one in batches)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    moved = {n for n, one in run.network.named_parameters() if one.grad is not None}
    assert moved == {name for name, _ in run.network.named_parameters()}


def _l1(run: Run, batch: Batch) -> float:
    low, high = (one.permute(0, 3, 1, 2) / 255 for one in (batch.low, batch.high))
    with torch.no_grad():
        return float((run.network(low, batch.scale) - high).abs().mean())


def test_the_loss_weighs_what_nothing_befell() -> None:
    changes = [
        "losses.0.identity_weight=3",
        "losses.0.kind=l1",
        "execution.precision=float32",
        "network.blocks=1",
    ]
    recipe = load_recipe("mepsnet-s", [*changes, "network.srirs=1"])
    random = np.random.default_rng(0)
    low = torch.from_numpy(random.integers(0, 256, (2, 16, 16, 3), np.uint8))
    high = low.clone()
    high[:, 4:] = 255 - low[:, 4:]
    batch, run = Batch(1, recipe.task.degradation, (high, low)), Run.fresh(recipe)
    with torch.no_grad():
        image, original = (one.permute(0, 3, 1, 2) / 255 for one in (low, high))
        errors = (run.network(image, 1) - original).abs()
    expected = (3 * errors[:, :, :4].sum() + errors[:, :, 4:].sum()) / errors.numel()

    assert train_step(run, [batch]).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_batch_that_the_scales_cannot_share_is_refused(tiny_recipe: Path) -> None:
    with pytest.raises(UserError, match="cannot share a batch of 2 by their weights"):
        load_recipe(str(tiny_recipe), ["method.all_scales=true"])
    with pytest.raises(UserError, match="leave no scale to train"):
        load_recipe(str(tiny_recipe), ["method.scale_weights={2: 0, 3: 0, 4: 0}"])


def test_a_scale_without_weight_gets_no_patches(tiny_recipe: Path, tiny_data: Path) -> None:
    recipe = load_recipe(
        str(tiny_recipe), ["method.all_scales=true", "method.scale_weights={2: 1, 3: 0, 4: 1}"]
    )
    batches = draw_batches(recipe, _source(recipe, tiny_data), 0)
    assert [(one.scale, len(one.low)) for one in batches] == [(2, 1), (4, 1)]


def test_a_step_leaves_the_other_scales_alone_and_moves_the_average(
    tiny_recipe: Path, tiny_data: Path
) -> None:
    recipe = load_recipe(str(tiny_recipe)).with_execution(precision="float32")
    run = Run.fresh(recipe)
    source = _source(recipe, tiny_data)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    step = next(s for s in range(50) if _batch(recipe, source, s).scale == 3)
    train_step(run, draw_batches(recipe, source, step))
    changed = {n for n, value in run.network.state_dict().items() if not value.equal(before[n])}
    assert any(name.startswith("upsamplers.x3") for name in changed)
    assert not any(name.startswith(("upsamplers.x2", "upsamplers.x4")) for name in changed)
    for name, parameter in run.network.named_parameters():
        expected = torch.lerp(before[name], parameter.detach(), 1 - 1 / 11)
        torch.testing.assert_close(run.average[name], expected)


def test_pictures_too_small_for_the_largest_patch_are_left_out_and_counted(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    train(recipe, tiny_data, tmp_path / "without", progress=False)
    assert "left out" not in capsys.readouterr().out

    # The first stage takes 8×8, which at ×4 are 32; the second 12×12.
    data, narrow = tmp_path / "data", np.zeros((80, 44, 3), np.uint8)
    shutil.copytree(tiny_data, data)
    Image.fromarray(narrow).save(data / "train" / "narrow.png")
    train(recipe, data, tmp_path / "run", progress=False)
    assert "too small for the largest patch, left out: 1" in capsys.readouterr().out
    _assert_same_weights(tmp_path / "run", tmp_path / "without")
    assert find_model(str(tmp_path / "run" / WEIGHTS)).training["pictures"] == 3

    for path in (data / "train").iterdir():
        Image.fromarray(narrow).save(path)
    with pytest.raises(
        UserError, match=r"train: .* none of the 4 pictures read from it holds 48×48 pixels"
    ):
        train(recipe, data, tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    Run.fresh(recipe).save(tmp_path / CHECKPOINT)
    other = recipe.model_copy(update={"network": load_recipe("carn").network})
    with pytest.raises(UserError, match="another network"):
        Run.resume(tmp_path / CHECKPOINT, other)


def test_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    pickle = tmp_path / "network.pth"
    torch.save({"weight": torch.zeros(1)}, pickle)
    with pytest.raises(UserError, match="pickles"):
        load_tensors(pickle)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_tensors(tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match="no such checkpoint"):
        load_tensors(tmp_path / "none.safetensors")


def test_others_may_read_weights_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "weights.safetensors", {"one": torch.ones(1)}, {})
    modes = [path.stat().st_mode for path in tmp_path.iterdir()]
    assert modes[0] == modes[1]


def test_the_recipe_travels_with_the_weights(
    tmp_path: Path, tiny_recipe: Path, tiny_data: Path
) -> None:
    weights = train(load_recipe(str(tiny_recipe)), tiny_data, tmp_path, progress=False)
    metadata = load_tensors(weights)[1]
    assert Recipe.model_validate_json(metadata["recipe"]) == load_recipe(str(tiny_recipe))
    assert json.loads(metadata["training"])["steps"] == 40


def test_a_metric_without_its_weights_is_refused_before_the_first_step(
    tiny_recipe: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path))
    recipe = load_recipe(str(tiny_recipe), ["validation.metrics=[psnr, lpips]"])
    with pytest.raises(UserError, match="LPIPS needs it"):
        train(recipe, tiny_data, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
