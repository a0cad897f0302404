"""The self-ensemble must undo every turn and flip, and average in float."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runtime import ensemble


def test_a_network_that_does_nothing_gives_the_picture_back() -> None:
    image = np.random.default_rng(0).random((4, 7, 3), np.float32)

    np.testing.assert_allclose(ensemble.restore(lambda x, _: x, image), image, atol=1e-7)


def test_all_eight_orientations_are_shown_once() -> None:
    image = np.random.default_rng(0).random((4, 7, 3), np.float32)
    shown = []

    def spy(oriented: np.ndarray, index: int) -> np.ndarray:
        assert index == len(shown)
        shown.append(torch.tensor(oriented.copy()))
        return oriented

    ensemble.restore(spy, image)

    picture = torch.tensor(image)
    expected = [torch.rot90(one, k) for one in (picture, picture.flip(1)) for k in range(4)]
    for orientation in expected:
        assert sum(torch.equal(orientation, one) for one in shown) == 1
    assert len(shown) == 8


@pytest.mark.parametrize("scale", [1, 3])
def test_it_is_the_mean_over_orientations(scale: int) -> None:
    # A picture with one bright corner pixel, through a network that keeps the first row only.
    image = np.zeros((2, 2, 3), np.float32)
    image[0, 0] = 1

    def first_row(oriented: np.ndarray, index: int) -> np.ndarray:
        restored = oriented.repeat(scale, axis=0).repeat(scale, axis=1)
        restored[scale:] = 0
        return restored

    restored = ensemble.restore(first_row, image)

    # The corner is in the first row for four of the eight orientations; a sum rounded to bytes
    # on the way would not keep one half.
    assert restored.shape == (2 * scale, 2 * scale, 3)
    np.testing.assert_array_equal(restored[:scale, :scale], 0.5)
    assert restored.sum() == pytest.approx(0.5 * 3 * scale * scale)
