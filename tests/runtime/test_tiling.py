"""Tiles must cover the picture exactly once and give the pixels of the whole picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import runtime
from runtime.errors import UserError
from runtime.session import Session
from runtime.tiling import Tile, plan_default_tiles, plan_tiles, restore_tiled


class Known:
    """A session with other facts about it than its manifest gives."""

    def __init__(
        self, session: Session, halo: int | None, fixed_size: tuple[int, int] | None = None
    ) -> None:
        self._session = session
        self.scale, self.halo, self.fixed_size = session.scale, halo, fixed_size
        self.pooling = self.open_tiled = None
        self.sides, self.whole = session.sides, session.whole
        self.sizes: set[tuple[int, ...]] = set()

    def run(self, image: np.ndarray) -> np.ndarray:
        self.sizes.add(image.shape[:2])
        return self._session.run(image)


def _picture(height: int, width: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    random = np.random.default_rng(height * 1000 + width)
    return random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


def _whole(session: Session, image: np.ndarray) -> np.ndarray:
    """The same picture restored at once, rounded by NumPy alone."""
    white = np.iinfo(image.dtype).max
    restored = session.run((image / white).astype(np.float32))
    return np.rint(np.clip(restored, 0, 1) * np.float32(white)).astype(image.dtype)


def _difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())


@settings(max_examples=300)
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(1, 40),
    halo=st.integers(0, 30),
)  # fmt: skip
def test_plan_covers_once_with_full_halo_in_equal_windows(
    height: int, width: int, tile: int, halo: int
) -> None:
    tiles = plan_tiles(height, width, tile, halo)

    window = min(height, tile + 2 * halo), min(width, tile + 2 * halo)
    assert _sound_plan(tiles, height, width, halo) == window


def _sound_plan(tiles: list[Tile], height: int, width: int, halo: int) -> tuple[int, int]:
    """Check what every plan promises and return the size of its windows."""
    sizes = set()
    covered = np.zeros((height, width), int)
    for one in tiles:
        covered[one.rows.kept(1), one.columns.kept(1)] += 1
        sizes.add((one.rows.stop - one.rows.start, one.columns.stop - one.columns.start))
        for span, extent in ((one.rows, height), (one.columns, width)):
            assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.stop <= extent
            assert span.start == 0 or span.keep_start - span.start >= halo
            assert span.stop == extent or span.stop - span.keep_stop >= halo
    assert (covered == 1).all()
    assert len(sizes) == 1
    return sizes.pop()


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), halo=st.integers(0, 90))
# Some number of rows leaves windows exactly as wide as their two halos.
@example(height=2600, width=4000, halo=3)
@example(height=674, width=4000, halo=21)
@example(height=634, width=4000, halo=24)
def test_default_plan_is_sound_within_its_memory_and_reads_less(
    height: int, width: int, halo: int
) -> None:
    tiles = plan_default_tiles(height, width, halo)

    tall, wide = _sound_plan(tiles, height, width, halo)
    square = plan_tiles(height, width, 128, halo)
    square_window = min(height, 128 + 2 * halo) * min(width, 128 + 2 * halo)
    assert tall * wide <= (128 + 2 * halo) ** 2
    assert len(tiles) * tall * wide <= len(square) * square_window


def test_default_plan_of_a_picture_for_720p() -> None:
    # 320 × 180, CARN's halo of 21, at most 170² pixels: three windows of 180 × 135, for two would
    # be 181 wide, and 180 · 181 is too much.
    tiles = plan_default_tiles(180, 320, halo=21)

    assert [(tile.columns.start, tile.columns.stop) for tile in tiles] == [
        (0, 135), (93, 228), (185, 320),
    ]  # fmt: skip
    assert {(tile.rows.start, tile.rows.stop) for tile in tiles} == {(0, 180)}


def test_plan_done_by_hand() -> None:
    # Windows of 4 + 2·2 = 8 in a row of 15: 0…8 keeps 0…6, 4…12 keeps 6…10, and the last one,
    # due at 8…16, is shifted to 7…15 and keeps 10…15.
    rows = [tile.rows for tile in plan_tiles(15, 1, tile=4, halo=2)]

    assert [dataclasses.astuple(row) for row in rows] == [(0, 8, 0, 6), (4, 12, 6, 10),
                                                          (7, 15, 10, 15)]  # fmt: skip


def test_a_tile_without_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="choose 1 or more"):
        plan_tiles(10, 10, tile=0, halo=3)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 50))
def test_float_tiles_give_the_whole_pictures_pixels(
    onnx_session: Session, height: int, width: int, tile: int
) -> None:
    image = np.random.default_rng(height * 41 + width).random((height, width, 3), np.float32)
    stitched = np.full((2 * height, 2 * width, 3), np.nan, np.float32)

    for one in plan_tiles(height, width, tile, onnx_session.halo):
        restored = onnx_session.run(image[one.rows.window(), one.columns.window()])
        kept = restored[one.rows.kept_of_window(2), one.columns.kept_of_window(2)]
        stitched[one.rows.kept(2), one.columns.kept(2)] = kept

    np.testing.assert_allclose(stitched, onnx_session.run(image), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 50))
def test_uint16_pictures_keep_their_precision_in_tiles(
    onnx_session: Session, height: int, width: int, tile: int
) -> None:
    image = _picture(height, width, np.uint16)

    restored = restore_tiled(onnx_session, image, tile)

    assert restored.dtype == np.uint16
    # 1e-6 of white is less than one level of 65 535, but may tip a rounding.
    assert _difference(restored, _whole(onnx_session, image)) <= 1


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 50))
def test_int8_tiles_are_identical(
    int8_session: Session, height: int, width: int, tile: int
) -> None:
    image = _picture(height, width)

    restored = restore_tiled(int8_session, image, tile)

    np.testing.assert_array_equal(restored, _whole(int8_session, image))


def test_a_halo_one_pixel_short_fails(onnx_session: Session) -> None:
    image = _picture(40, 30, np.uint16)
    whole = _whole(onnx_session, image)

    assert _difference(restore_tiled(onnx_session, image, 9), whole) <= 1
    assert _difference(restore_tiled(Known(onnx_session, 2), image, 9), whole) > 100


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 300)])
def test_small_and_thin_pictures(onnx_session: Session, size: tuple[int, int]) -> None:
    image = _picture(*size)

    restored = restore_tiled(onnx_session, image)

    assert restored.shape == (2 * size[0], 2 * size[1], 3)
    assert _difference(restored, _whole(onnx_session, image)) <= 1


def test_large_pictures_are_tiled_by_default_in_windows_of_one_size(onnx_session: Session) -> None:
    image = _picture(300, 280)
    spy = Known(onnx_session, 3)

    restored = restore_tiled(spy, image)

    # 3 · 2 windows of at most (128 + 2·3)² pixels: (300 + 2·6) / 3 high, (280 + 6) / 2 wide.
    assert spy.sizes == {(104, 143)}
    assert _difference(restored, _whole(onnx_session, image)) <= 1


def test_a_grey_picture_is_the_mean_of_three_restored_channels(onnx_session: Session) -> None:
    grey = _picture(20, 17, np.uint16, channels=1)
    colours = onnx_session.run(np.repeat(grey / np.float32(65535), 3, axis=2))
    expected = np.rint(np.clip(colours.mean(axis=2, keepdims=True), 0, 1) * 65535)

    assert _difference(restore_tiled(onnx_session, grey, 6), expected) <= 1


def test_out_receives_the_result(onnx_session: Session) -> None:
    image = _picture(9, 8)
    out = np.zeros((18, 16, 4), np.uint8)[..., :3]

    assert restore_tiled(onnx_session, image, out=out) is out
    np.testing.assert_array_equal(out, restore_tiled(onnx_session, image))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "not finite"), (-np.inf, "not finite"), (231.0, "up to 231, expected")],
)
def test_values_that_are_no_pictures_are_refused(
    onnx_session: Session, monkeypatch: pytest.MonkeyPatch, value: float, message: str
) -> None:
    run = onnx_session.run

    def damaged(image: np.ndarray) -> np.ndarray:
        restored = run(image)
        restored[-1, -1, -1] = value
        return restored

    monkeypatch.setattr(onnx_session, "run", damaged)
    with pytest.raises(UserError, match=message):
        restore_tiled(onnx_session, np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize("tile", [8, 128])
def test_ensemble_in_tiles_equals_ensemble_of_the_whole(onnx_session: Session, tile: int) -> None:
    image = _picture(23, 31, np.uint16)
    turned = [
        np.rot90(_whole_float(onnx_session, np.rot90(image[:, ::flip], turns)), -turns)[:, ::flip]
        for turns in range(4)
        for flip in (1, -1)
    ]
    expected = np.rint(np.clip(np.mean(turned, axis=0), 0, 1) * 65535)

    restored = restore_tiled(onnx_session, image, tile, ensemble=True)

    assert _difference(restored, expected) <= 1
    assert _difference(restored, restore_tiled(onnx_session, image)) > 100


def _whole_float(session: Session, image: np.ndarray) -> np.ndarray:
    return session.run((image / 65535).astype(np.float32))


@pytest.fixture
def fixed_session(
    tmp_path: Path,
    write_onnx: Callable[..., Path],
    write_manifest: Callable[..., object],
) -> Session:
    path = write_onnx(tmp_path / "fixed.onnx", size=(24, 20))
    write_manifest(path, scale=2, halo=3)
    return runtime.open(path, threads=1)


@pytest.mark.parametrize("size", [(24, 20), (25, 20), (100, 61), (31, 77)])
def test_fixed_size_artifacts_restore_larger_pictures_exactly(
    fixed_session: Session, onnx_session: Session, size: tuple[int, int]
) -> None:
    image = _picture(*size, np.uint16)

    restored = restore_tiled(fixed_session, image)

    assert fixed_session.fixed_size == (24, 20)
    assert _difference(restored, _whole(onnx_session, image)) <= 1


@pytest.mark.parametrize("size", [(1, 1), (10, 12), (24, 7), (6, 50)])
def test_fixed_size_artifacts_reflect_smaller_pictures(
    fixed_session: Session, onnx_session: Session, size: tuple[int, int]
) -> None:
    image = _picture(*size, np.uint16)

    restored = restore_tiled(fixed_session, image)

    below, right = max(0, 24 - size[0]), max(0, 20 - size[1])
    reflected = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    expected = _whole(onnx_session, reflected)[: 2 * size[0], : 2 * size[1]]
    assert _difference(restored, expected) <= 1
    # Far from the padded edges it is also what the whole picture gives.
    inside = (slice(max(0, 2 * size[0] - 6 * (below > 0))),
              slice(max(0, 2 * size[1] - 6 * (right > 0))))  # fmt: skip
    if restored[inside].size:
        assert _difference(restored[inside], _whole(onnx_session, image)[inside]) <= 1


def test_requests_that_do_not_fit_the_artifact_name_the_remedy(
    onnx_session: Session, fixed_session: Session
) -> None:
    image = _picture(50, 50)
    with pytest.raises(UserError, match="leave --tile out"):
        restore_tiled(fixed_session, image, tile=16)
    with pytest.raises(UserError, match="square input"):
        restore_tiled(fixed_session, image, ensemble=True)
    with pytest.raises(UserError, match="square input"):
        restore_tiled(Known(onnx_session, 3, fixed_size=(20, 24)), image, ensemble=True)
    with pytest.raises(UserError, match=r"manifest\.json"):
        restore_tiled(Known(onnx_session, None), image, tile=16)
    with pytest.raises(UserError, match=r"manifest\.json"):
        restore_tiled(Known(onnx_session, None), np.zeros((1500, 1500, 3), np.uint8))
    with pytest.raises(UserError, match=r"manifest\.json"):
        restore_tiled(Known(onnx_session, None, fixed_size=(24, 24)), image)
    with pytest.raises(UserError, match="halo of 12"):
        restore_tiled(Known(onnx_session, 12, fixed_size=(24, 24)), image)


def test_without_a_halo_a_picture_is_restored_whole(onnx_session: Session) -> None:
    image = _picture(300, 280)
    spy = Known(onnx_session, None)

    restore_tiled(spy, image)

    assert spy.sizes == {(300, 280)}


def test_a_picture_of_exactly_the_fixed_size_needs_no_tiles(onnx_session: Session) -> None:
    image = _picture(24, 24)
    spy = Known(onnx_session, None, fixed_size=(24, 24))

    restored = restore_tiled(spy, image)

    assert spy.sizes == {(24, 24)}
    assert _difference(restored, _whole(onnx_session, image)) <= 1


def test_a_network_that_pools_restores_less_than_its_fixed_size_with_its_second_file(
    onnx_session: Session,
) -> None:
    class Opened(Exception):
        pass

    def opened() -> Session:
        raise Opened

    spy = Known(onnx_session, 3, fixed_size=(24, 24))
    spy.open_tiled = opened

    restore_tiled(spy, _picture(24, 24))
    # The first file would pool over the reflection, too.
    with pytest.raises(Opened):
        restore_tiled(spy, _picture(20, 20))


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        ([[[1, 2, 3]]], "found list"),
        (np.zeros((0, 4, 3), np.uint8), "found uint8 0×4×3 without pixels"),
        (np.zeros((4, 0, 1), np.uint16), "found uint16 4×0×1 without pixels"),
        (np.zeros((4, 4, 3), np.int64), "found int64 4×4×3"),
        (np.zeros((4, 4), np.uint8), "found uint8 4×4"),
        (np.zeros((4, 4, 4), np.uint8), "found uint8 4×4×4"),
    ],
)
def test_what_is_no_picture_is_refused(onnx_session: Session, picture: Any, found: str) -> None:
    with pytest.raises(UserError, match="is an array H × W × 1 or 3 of uint8 or uint16") as caught:
        restore_tiled(onnx_session, picture)
    assert found in str(caught.value)
