"""The adversarial method: discriminators, their steps, exact resume, and collapse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.errors import UserError
from training.checkpoint import load_tensors
from training.data.batches import Batch
from training.degradations import bicubic
from training.losses.loss import Patches
from training.methods.adversarial import Adversarial, Discriminators
from training.methods.discriminator import Discriminator
from training.methods.forms import FORMS
from training.methods.method import Collapse
from training.recipe import Recipe
from training.recipe_reading import load_recipe
from training.run import Run
from training.run_folder import CHECKPOINT, WEIGHTS
from training.stepping import train_step
from training.trainer import train

CPU = torch.device("cpu")


def _recipe(path: Path, method: str = "pools: [1, 2]", steps: int = 4) -> Recipe:
    changes = [
        f"method={{kind: adversarial, {method}}}",
        f"stages=[{{steps: {steps}, patch: 8, batch: 2}}]",
        "network.scales=[2]",
        "losses.0.kind=l2",
        "execution.precision=float32",
    ]
    return load_recipe(str(path), changes)


def _batch(seed: int) -> Batch:
    random = torch.Generator().manual_seed(seed)
    windows = torch.randint(0, 256, (2, 24, 24, 3), generator=random, dtype=torch.uint8)
    return Batch(2, bicubic.DEGRADATION, (windows,))


def _kinds_of(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(one, kind) for one in network.modules())


def test_the_discriminator_is_that_of_the_thesis() -> None:
    network = Discriminator(2, 0.01)
    kernels = [one.weight for one in network.modules() if isinstance(one, nn.Conv2d)]
    assert len(kernels) == 9
    assert sum(one.numel() for one in kernels[:8]) == 5_285_568  # counted for Fig. 2.1
    assert _kinds_of(network, nn.BatchNorm2d) == 7
    assert network(torch.rand(2, 3, 32, 48)).shape == (2, 1, 2, 3)


def test_a_step_is_that_of_the_authors_code(tiny_recipe: Path) -> None:
    """Discriminators first, then the network against them, with BCE of probabilities."""
    run, other = (Run.fresh(_recipe(tiny_recipe)) for _ in range(2))
    batch = _batch(1)
    restored = other.network(batch.low.permute(0, 3, 1, 2).float() / 255, 2)
    original = batch.high.permute(0, 3, 1, 2).float() / 255
    assert isinstance(other.opponent, Discriminators)
    networks = list(other.opponent._networks)
    optimizer = torch.optim.Adam([one for net in networks for one in net.parameters()], 1e-4)

    def cross_entropy(pictures: Tensor, label: float) -> Tensor:
        losses = []
        for network, pool in zip(networks, (1, 2), strict=True):
            probability = network.body(F.avg_pool2d(pictures, pool)).sigmoid()
            losses.append(F.binary_cross_entropy(probability, torch.full_like(probability, label)))
        return torch.stack(losses).sum()

    torch.autograd.backward(cross_entropy(original, 1.0) + cross_entropy(restored.detach(), 0.0))
    optimizer.step()
    expected = F.mse_loss(restored, original) + 5e-3 * cross_entropy(restored, 1.0)

    found = train_step(run, [batch])

    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert isinstance(run.opponent, Discriminators)
    for ours, theirs in zip(
        run.opponent._networks.parameters(), other.opponent._networks.parameters(), strict=True
    ):
        if ours.ndim == 4:  # Biases in front of a normalization have no gradient but rounding.
            assert (ours - theirs).abs().mean() < 2e-6  # a step is 1e-4, of either sign


def test_forms_are_those_of_the_lectures_and_of_esrgan() -> None:
    random = torch.Generator().manual_seed(0)
    original, restored = torch.randn(2, 3, 1, 2, 2, generator=random, dtype=torch.double)
    squares = FORMS["least-squares"]
    torch.testing.assert_close(
        squares.discriminator(original, restored),
        F.mse_loss(original, torch.ones_like(original))
        + F.mse_loss(restored, torch.zeros_like(restored)),
    )
    torch.testing.assert_close(
        squares.network(None, restored), F.mse_loss(restored, torch.ones_like(restored))
    )
    # ESRGAN, equations 1 and 2: D_Ra(x, y) = σ(C(x) - E[C(y)]).
    real, fake = (original - restored.mean()).sigmoid(), (restored - original.mean()).sigmoid()
    relativistic = FORMS["relativistic"]
    torch.testing.assert_close(
        relativistic.discriminator(original, restored), -real.log().mean() - (1 - fake).log().mean()
    )
    torch.testing.assert_close(
        relativistic.network(original, restored), -(1 - real).log().mean() - fake.log().mean()
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_form_teaches(form: str) -> None:
    torch.manual_seed(0)
    options = {"form": form, "pools": [1], "learning_rate": 1e-3}
    opponent = Adversarial.model_validate(options).opponent(CPU)
    restored, original = torch.rand(2, 4, 3, 16, 16)
    restored = (0.2 * restored).requires_grad_()
    for _ in range(8):
        opponent.learn([Patches(restored, original)])
    before = opponent.judge(Patches(restored, original))
    torch.autograd.backward(before)
    assert restored.grad is not None
    nearer = restored.detach() - 1e-3 * restored.grad.sign()
    assert opponent.judge(Patches(nearer, original)) < before
    assert opponent.judge(Patches(original, original)) < before


def test_the_network_is_taught_and_the_discriminators_are_not_by_its_verdict() -> None:
    opponent = Adversarial(pools=(1,)).opponent(CPU)
    restored = torch.rand(2, 3, 16, 16).requires_grad_()
    torch.autograd.backward(opponent.judge(Patches(restored, torch.rand(2, 3, 16, 16))))
    assert restored.grad is not None
    assert restored.grad.any()
    assert all(one.grad is None for one in opponent._networks.parameters())


def test_discriminators_learn_what_is_original() -> None:
    torch.manual_seed(0)
    opponent = Adversarial(pools=(1,), learning_rate=1e-3).opponent(CPU)
    before = opponent.check(0)
    for _ in range(12):
        opponent.learn([Patches(torch.rand(4, 3, 16, 16) * 0.2, torch.rand(4, 3, 16, 16))])
    assert opponent.check(12) < before - 0.02


def test_a_resumed_run_is_the_one_that_never_stopped(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = _recipe(tiny_recipe)
    whole = Run.fresh(recipe)
    for step in range(4):
        if step == 2:
            whole.save(tmp_path / CHECKPOINT)
        train_step(whole, [_batch(step)])
    resumed = Run.resume(tmp_path / CHECKPOINT, recipe)
    for step in range(2, 4):
        train_step(resumed, [_batch(step)])
    assert whole.opponent is not None
    assert resumed.opponent is not None
    assert all(
        torch.equal(one, other)
        for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True)
    )
    ours, theirs = whole.opponent.state(), resumed.opponent.state()
    assert ours.keys() == theirs.keys()
    assert any("adam.exp_avg_sq" in name for name in ours)
    assert any("running_var" in name for name in ours)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    other = _recipe(tiny_recipe, "pools: [1, 2], weight: 0.1")
    with pytest.raises(UserError, match="another method"):
        Run.resume(tmp_path / CHECKPOINT, other)


@pytest.mark.slow
def test_a_collapse_stops_the_run_and_keeps_the_checkpoint(
    tiny_recipe: Path, tiny_data: Path, tmp_path: Path
) -> None:
    # No discriminator errs as much as chance, so the run stops at the first look, after 100 steps.
    recipe = _recipe(tiny_recipe, "pools: [1], least_loss: 0.8", steps=101)
    recipe = recipe.model_copy(update={"checkpoint_every": 96})
    with pytest.raises(Collapse, match=r"step 100: the discriminators have collapsed"):
        train(recipe, tiny_data, tmp_path / "run", progress=False)
    assert load_tensors(tmp_path / "run" / CHECKPOINT)[1]["step"] == "96"
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_discriminators_that_are_not_finite_stop_the_run(
    tiny_recipe: Path, tiny_data: Path, tmp_path: Path
) -> None:
    recipe = _recipe(tiny_recipe, "pools: [1], learning_rate: 1.0e+37", steps=5)
    with pytest.raises(UserError, match=r"step [1-5]: the loss is not finite"):
        train(recipe, tiny_data, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / WEIGHTS).exists()
    opponent = Adversarial(pools=(1,)).opponent(CPU)
    opponent.load({**opponent.state(), "opponent.mean_loss": torch.tensor(torch.nan)})
    with pytest.raises(Collapse, match=r"step 7: .* loss is not finite"):
        opponent.check(7)


def test_patches_too_small_for_a_pool_are_refused(tiny_recipe: Path) -> None:
    run = Run.fresh(_recipe(tiny_recipe, "pools: [4]"))
    with pytest.raises(UserError, match=r"pool 4 needs patches of 32 pixels .* found 16"):
        train_step(run, [_batch(0)])
