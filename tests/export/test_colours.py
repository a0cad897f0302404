"""The generated pictures reach every corner of the colour cube."""

from __future__ import annotations

import numpy as np
import pytest

from export.colours import BETWEEN, CORNERS, GREYS, chequer, colour_pictures, flat


def test_all_tones_are_there_and_differ() -> None:
    assert len({*CORNERS, *BETWEEN}) == 14
    assert GREYS[0] == (0, 0, 0) and GREYS[-1] == (255, 255, 255) and len(GREYS) == 16


def test_pictures_are_always_the_same_and_hold_all_corners() -> None:
    pictures, again = colour_pictures(), colour_pictures()
    assert all(np.array_equal(one, other) for one, other in zip(pictures, again, strict=True))
    assert {one.dtype for one in pictures} == {np.dtype(np.uint8)}
    for picture in (pictures[0], pictures[1], pictures[4]):
        assert set(CORNERS) <= {tuple(map(int, tone)) for tone in picture.reshape(-1, 3)}


def test_flat_areas_and_chequers_have_the_stated_sides() -> None:
    assert (flat((255, 128, 0), 5) == [255, 128, 0]).all() and flat((0, 0, 0), 5).shape == (5, 5, 3)
    board = chequer((255, 0, 0), (255, 255, 255), square=3)
    assert board.shape == (6, 6, 3)
    assert (board[:3, :3] == [255, 0, 0]).all() and (board[3:, 3:] == [255, 0, 0]).all()
    assert (board[:3, 3:] == 255).all() and (board[3:, :3] == 255).all()


@pytest.mark.parametrize("size", [(5, 300), (96, 96), (1, 1)])
def test_sized_pictures_repeat_and_end_where_the_size_ends(size: tuple[int, int]) -> None:
    pictures = colour_pictures()
    for picture, original in zip(colour_pictures(size), pictures, strict=True):
        assert picture.shape[:2] == size
        rows, columns = (np.arange(n) % side for n, side in zip(size, original.shape, strict=False))
        assert np.array_equal(picture, original[np.ix_(rows, columns)])
