from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from skimage.color import rgb2ycbcr
from torch import Tensor
from torch.nn import functional as F

from training.loss import distance
from training.recipe import Recipe
from training.recipe_reading import load_recipe


def _recipe(*changes: str) -> Recipe:
    return load_recipe("carn-m", ["luma=0", *changes])


def _patches() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    restored, original = torch.rand(2, 4, 3, 12, 12, generator=random)
    return restored, original


@pytest.mark.parametrize(("loss", "torchs"), [("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_l1_and_l2_are_torchs(loss: str, torchs: Callable[..., Tensor]) -> None:
    restored, original = _patches()
    found = distance(_recipe(f"loss={loss}"), restored, original)
    torch.testing.assert_close(found, torchs(restored, original))


def test_the_part_of_luma_is_what_skimage_calls_y() -> None:
    restored, original = _patches()
    y, expected_y = (
        torch.from_numpy(rgb2ycbcr(one.permute(0, 2, 3, 1).numpy())[..., 0]).float() / 219
        for one in (restored, original)
    )
    for loss, torchs in (("l1", F.l1_loss), ("l2", F.mse_loss)):
        found = distance(_recipe(f"loss={loss}", "luma=0.7"), restored, original)
        expected = 0.7 * torchs(y, expected_y) + 0.3 * torchs(restored, original)
        torch.testing.assert_close(found, expected)


def test_rmse_is_of_each_patch() -> None:
    restored, original = _patches()
    restored[0] = original[0] + 0.1
    roots = [F.mse_loss(*pair).sqrt() for pair in zip(restored, original, strict=True)]
    found = distance(_recipe("loss=rmse"), restored, original)
    torch.testing.assert_close(found, torch.stack(roots).mean(), rtol=1e-4, atol=0)


def test_rmse_has_a_slope_where_nothing_is_wrong() -> None:
    _, original = _patches()
    restored = original.clone().requires_grad_()
    torch.autograd.backward(distance(_recipe("loss=rmse", "luma=0.9"), restored, original))
    assert restored.grad is not None
    assert restored.grad.isfinite().all()
