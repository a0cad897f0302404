import pytest

from runtime.errors import UserError
from runtime.snapdragon import SNAPDRAGONS, snapdragon_named


def test_an_soc_is_found_in_any_case():
    assert snapdragon_named("SM8650") is SNAPDRAGONS["sm8650"]
    assert snapdragon_named("sm8650").architecture == 75


def test_an_unknown_soc_is_told_with_all_known_ones():
    with pytest.raises(UserError, match="sm9999: no SoC that reslite knows") as told:
        snapdragon_named("sm9999")
    assert all(name in str(told.value) for name in SNAPDRAGONS)
