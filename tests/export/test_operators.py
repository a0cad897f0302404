"""The vocabulary: what its entries must say."""

from __future__ import annotations

import pytest

from export.operators import Operator, Trait


def test_an_operator_that_is_not_pointwise_says_how_far_it_reaches() -> None:
    # Without a reach its halo would be 0, and tiles would be wrong at their edges.
    with pytest.raises(ValueError, match="Blur: expected reach and resolution, or POINTWISE"):
        Operator("Blur", traits=frozenset({Trait.PER_CHANNEL}))
    with pytest.raises(ValueError, match="Blur"):
        Operator("Blur", reach=lambda attributes, shapes, needed: needed + 1)
