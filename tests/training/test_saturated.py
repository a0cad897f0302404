from __future__ import annotations

import numpy as np

from training.data.saturated import saturated_patches


def test_patches_are_the_same_for_equal_states() -> None:
    one, other = (saturated_patches(np.random.default_rng(3), 5, 12) for _ in range(2))
    assert one.shape == (5, 12, 12, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, other)


def test_patches_hold_every_corner_in_areas_and_tones_between() -> None:
    patches = saturated_patches(np.random.default_rng(0), 400, 16)
    areas = {tuple(one[0, 0].tolist()) for one in patches if (one == one[0, 0]).all()}
    assert len([tone for tone in areas if set(tone) <= {0, 255}]) == 8
    tones = [len(np.unique(one.reshape(-1, 3), axis=0)) for one in patches]
    assert sum(count == 2 for count in tones) > 150  # chequers, noise and shapes
    assert sum(count > 2 for count in tones) > 50  # gradients, and shapes in all channels
