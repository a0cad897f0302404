"""The published tables of scales are right in every colour, at every scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.sources.source import Source
from quantize import load_scales
from tools.int8_costs import Costs, costs_table, shifts, written
from training.catalogue import find_model

_FLAT, _EDGE = 3, 17
_PUBLISHED = [("carn-m", 2), ("carn-m", 3), ("carn-m", 4), ("carn", 2), ("carn", 3), ("carn", 4)]


@pytest.mark.parametrize(("name", "scale"), _PUBLISHED)
def test_saturated_areas_and_edges_stay_as_the_network_makes_them(
    name: str, scale: int, tmp_path: Path
) -> None:
    source = Source.of(find_model(name), scale)
    areas, chequers = shifts(source, written(source, load_scales(name, scale), tmp_path))
    assert {tone: most for tone, most in areas.items() if most > _FLAT} == {}
    assert {pair: most for pair, most in chequers.items() if most > _EDGE} == {}
    assert (len(areas), len(chequers)) == (28, 28)


def test_costs_are_shown_by_network_and_scale() -> None:
    found = Costs({"one": 0.0156, "two": -0.001}, 0.046, 2, 16)
    assert costs_table({("carn-m", 4): found}, {"one": "One", "two": "Two"}).splitlines() == [
        "| | One | Two | worst picture | flat areas | chequers |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| `carn-m` ×4 | 0.016 | -0.001 | 0.046 | 2 | 16 |",
    ]
