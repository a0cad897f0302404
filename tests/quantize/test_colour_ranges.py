"""Ranges hold in saturated colours, and are no wider than these need."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from export.colours import colour_pictures, range_pictures
from export.graph import Graph, Node
from quantize import colour_ranges
from quantize.colour_ranges import colour_safe_ranges, restorable_pictures
from quantize.observers import min_max_range, observe
from quantize.ptq import as_image

_GREY = [torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).expand(1, 3, 16, 16)]


def _graph(surplus: float) -> Graph:
    """Red minus green and the picture, from which the picture is put together again.

    ``surplus`` is how much of the difference goes into the restored red.
    """
    first = np.zeros((4, 3, 1, 1), np.float32)
    first[0, :2, 0, 0] = (2, -2)
    first[[1, 2, 3], [0, 1, 2]] = 1
    last = np.zeros((3, 4, 1, 1), np.float32)
    last[[0, 1, 2], [1, 2, 3]] = np.array([1 - surplus, 1, 1])[:, None, None]
    last[0, 0] = surplus / 2
    constants = {"first": first, "last": last}
    constants |= {"four": np.zeros(4, np.float32), "three": np.zeros(3, np.float32)}
    nodes = (
        Node("Conv", "a", ("image", "first", "four"), ("a",), {"groups": 1}),
        Node("Conv", "b", ("a", "last", "three"), ("restored_image",), {"groups": 1}),
    )
    return Graph(nodes, constants)


def _found(surplus: float, levels_of_noise: float = 0.1) -> tuple[float, float]:
    graph = _graph(surplus)
    photographs = observe(graph, _GREY)
    colours = observe(graph, map(as_image, colour_pictures()))
    full = {k: min_max_range(seen.merged(colours[k])) for k, seen in photographs.items()}
    narrow = {name: min_max_range(seen) for name, seen in photographs.items()}
    low, high = full["a"]
    effect = levels_of_noise**2 * 12 / (high - low) ** 2
    return colour_safe_ranges(graph, narrow, full, {"a": 1000 * effect}, outputs=1000)["a"]


def test_a_range_that_red_needs_is_widened_and_one_that_it_does_not_need_stays() -> None:
    _, high = _found(surplus=0.5)
    assert high > 1.9  # red minus green reaches 2; photographs of grey reach 1
    _, high = _found(surplus=0.0)
    assert high < 1.01


def test_parts_that_a_network_restores_stay_of_a_picture_that_it_does_not() -> None:
    sharp = np.zeros((3, 3, 3, 3), np.float32)
    sharp[range(3), range(3)] = np.array([[0, -2, 0], [-2, 9.1, -2], [0, -2, 0]])
    node = Node("Conv", "a", ("image", "w", "b"), ("restored_image",), {"groups": 1})
    graph = Graph((node,), {"w": sharp, "b": np.zeros(3, np.float32)})
    mild = Graph((node,), {"w": sharp / 9, "b": np.zeros(3, np.float32)})

    found, all_of_it = restorable_pictures(graph), restorable_pictures(mild)

    whole = range_pictures()
    assert all(np.array_equal(one, whole[name]) for name, (one,) in all_of_it.items())
    # 5.1 times as bright in a corner: beyond 2 from 102 on.
    assert {int(one.max()) for one in found["tones"]} == {0, 17, 34, 51, 68, 85}
    assert found["text"] == []


def test_where_rounding_is_off_by_several_levels_clipping_may_be_too() -> None:
    _, careful = _found(surplus=0.5)
    _, noisy = _found(surplus=0.5, levels_of_noise=20)
    shifted = 255 * 0.25 * (careful - noisy)
    assert 10 < shifted <= 1.5 * 20


def test_clipping_shifts_no_flat_area_by_more_than_two_levels() -> None:
    _, high = _found(surplus=0.5)
    of_red = 2.0  # minus green
    assert 255 * 0.25 * (of_red - min(of_red, high)) <= 2


def _chain() -> Graph:
    """The picture copied four times in a row."""
    copied = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    names = ["image", "a", "b", "c", "restored_image"]
    nodes = tuple(
        Node("Conv", made, (read, "copied", "zero"), (made,), {"groups": 1})
        for read, made in pairwise(names)
    )
    return Graph(nodes, {"copied": copied, "zero": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    ("large", "searches", "passes"), [(1e11, 1, 15), (0.0, 1, 5), (0.0, 2, 10)]
)
def test_activations_of_large_networks_are_narrowed_in_groups(
    large: float, searches: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colour_ranges, "_LARGE", large)
    monkeypatch.setattr(colour_ranges, "_SEARCHES", searches)
    tried: list[set[str]] = []
    look = colour_ranges._Shown.are_right

    def counted(self: object, clipped: dict[str, tuple[float, float]], share: float) -> bool:
        tried.append(set(clipped))
        return look(self, clipped, share)

    monkeypatch.setattr(colour_ranges._Shown, "are_right", counted)
    narrow, full = (dict.fromkeys("abc", (0.0, high)) for high in (0.9, 1.0))
    found = colour_safe_ranges(_chain(), narrow, full, {"a": 3.0, "b": 2.0, "c": 1.0}, 1000)
    # White that is clipped by more than the share of 1.5 levels is no longer white.
    assert all(1 - 1.5 / 255 <= high <= 1 for _, high in found.values())
    assert len(tried) <= passes
    assert tried[-1] == {"a", "b", "c"}
    if searches == 1 and not large:
        assert len(set(found.values())) == 1
