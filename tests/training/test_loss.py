from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from skimage.color import rgb2ycbcr
from torch import Tensor
from torch.nn import functional as F

from training.losses.distance import Distance
from training.losses.loss import Patches
from training.losses.total_variation import TotalVariation


def _distance(restored: Tensor, original: Tensor, **keys: object) -> Tensor:
    return Distance.model_validate(keys).of(Patches(restored, original))


def _patches() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    restored, original = torch.rand(2, 4, 3, 12, 12, generator=random)
    return restored, original


@pytest.mark.parametrize(("loss", "torchs"), [("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_l1_and_l2_are_torchs(loss: str, torchs: Callable[..., Tensor]) -> None:
    restored, original = _patches()
    found = _distance(restored, original, kind=loss)
    torch.testing.assert_close(found, torchs(restored, original))


def test_the_part_of_luma_is_what_skimage_calls_y() -> None:
    restored, original = _patches()
    y, expected_y = (
        torch.from_numpy(rgb2ycbcr(one.permute(0, 2, 3, 1).numpy())[..., 0]).float() / 219
        for one in (restored, original)
    )
    for loss, torchs in (("l1", F.l1_loss), ("l2", F.mse_loss)):
        found = _distance(restored, original, kind=loss, luma=0.7)
        expected = 0.7 * torchs(y, expected_y) + 0.3 * torchs(restored, original)
        torch.testing.assert_close(found, expected)


def test_rmse_is_of_each_patch() -> None:
    restored, original = _patches()
    restored[0] = original[0] + 0.1
    roots = [F.mse_loss(*pair).sqrt() for pair in zip(restored, original, strict=True)]
    found = _distance(restored, original, kind="rmse")
    torch.testing.assert_close(found, torch.stack(roots).mean(), rtol=1e-4, atol=0)


def test_rmse_has_a_slope_where_nothing_is_wrong() -> None:
    _, original = _patches()
    restored = original.clone().requires_grad_()
    torch.autograd.backward(_distance(restored, original, kind="rmse", luma=0.9))
    assert restored.grad is not None
    assert restored.grad.isfinite().all()


def test_charbonnier_is_l1_with_a_round_corner() -> None:
    restored, original = _patches()
    found = _distance(restored, original, kind="charbonnier")
    torch.testing.assert_close(found, F.l1_loss(restored, original), rtol=1e-3, atol=0)
    assert float(_distance(original, original, kind="charbonnier")) == pytest.approx(1e-3)


def test_total_variation_is_the_mean_step_to_the_neighbours() -> None:
    ramp = torch.arange(6.0).expand(1, 3, 5, 6) * 0.1
    found = TotalVariation().of(Patches(ramp, ramp))
    assert float(found) == pytest.approx(0.1)
    turned = ramp.mT
    assert float(TotalVariation().of(Patches(turned, turned))) == pytest.approx(0.1)
