"""The chart: valid, deterministic, complete, and labels that keep their distance."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.scatter import Point, scatter_svg, spread_out

POINTS = [
    Point("carn-m", "TFLite", "float32", 32.5e9, 400.0),
    Point("carn", "TFLite", "float32", 90.9e9, 1180.0),
    Point("carn-m", "TFLite", "int8", 32.5e9, 95.0),
    Point("carn", "TFLite", "int8", 90.9e9, 149.0),
    Point("pcarn", "TFLite", "int8", 90.9e9, 151.0),
    Point("carn-m", "OpenVINO", "int8", 32.5e9, 0.0876),
]


def _texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [
        "".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def test_chart_says_everything() -> None:
    texts = _texts(scatter_svg("cpu", POINTS))

    for expected in (
        *("carn-m", "carn · pcarn", "32.5 G", "90.9 G"),
        *("TFLite float32  1180 ms", "TFLite int8  151 ms", "OpenVINO int8  0.0876 ms"),
    ):
        assert expected in texts, texts


def test_chart_is_the_same_every_time_and_ids_are_its_own() -> None:
    first, second = scatter_svg("cpu", POINTS), scatter_svg("npu", POINTS)

    assert scatter_svg("cpu", POINTS) == first
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= own


def test_chart_takes_its_colours_from_the_page() -> None:
    svg = scatter_svg("cpu", POINTS)

    assert "currentColor" in svg
    assert "var(--line)" in svg
    assert not re.search(r"#0[1-9]0[1-9]0[1-9]", svg)
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
    assert "<metadata>" not in svg


def test_single_point_is_a_chart_too() -> None:
    assert "TFLite int8  95.0 ms" in _texts(scatter_svg("one", [POINTS[2]]))


def test_npus_are_named_by_series_only() -> None:
    points = [Point("carn", "U65-256", "npu", 3.6e9, 18.1)]

    assert "U65-256  18.1 ms" in _texts(scatter_svg("npu", points))


def test_labels_that_have_room_stay() -> None:
    assert spread_out([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]


def test_labels_that_collide_move_apart_around_their_middle() -> None:
    assert spread_out([0.5, 0.5, 0.9], 0.1) == pytest.approx([0.45, 0.55, 0.9])
    # Two that collide with a third once they have moved.
    assert spread_out([0.5, 0.5, 0.56], 0.1) == pytest.approx([0.42, 0.52, 0.62])


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.2))
def test_labels_keep_their_distance_and_order(wanted: list[float], step: float) -> None:
    placed = spread_out(wanted, step)

    assert len(placed) == len(wanted)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for below, above in pairwise(order):
        assert placed[above] - placed[below] >= step - 1e-9
    assert sum(placed) == pytest.approx(sum(wanted), abs=1e-6)
