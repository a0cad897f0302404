"""Restoring a picture in tiles, with the same result as restoring it whole.

An output pixel depends on the input pixels within the halo (the radius of the receptive field)
around it. A tile is therefore read with a halo on each side, and only pixels restored from the full
halo are kept. At the picture's edge the window ends without a halo, and the network pads with zeros
exactly as it does for the whole picture. All windows are of one size, so that the runtime plans its
memory once.

A network that pools over the whole picture would pool over each tile instead. It comes with a
second file, cut at its pooling: a first pass over the tiles sums the features (of the kept pixels
only, so that every pixel counts once), a second pass restores with their average.

A network that takes sides of several pixels' multiples gets windows that start and end at such, of
a picture that is continued to the next multiple by reflection.

An artifact of fixed size takes windows of exactly that size. A picture smaller than the window is
continued by reflection at its bottom and right; within a halo of these two edges the result differs
from that of the whole picture, where the network pads with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime import ensemble as self_ensemble
from runtime.errors import UserError
from runtime.session import FloatPicture, Session, check_picture

_TYPES = ("uint8", "uint16", "float32")
_DEFAULT_TILE = 128
# Networks without enlargement have wide halos, so that larger tiles waste less. Memory limits the
# size: LiteRT takes 9 kB a pixel for mepsnet-s, in int8 as in float32 (docs/lab/mepsnet.md).
_DEFAULT_TILE_AT_SCALE_1 = 160
# Larger restored values are refused; networks overshoot white by 0.1 or 0.2.
_LARGEST_VALUE = 8.0
# Pixels of the largest picture for an artifact without a known halo, which cannot be tiled.
_LARGEST_UNTILED = 2_000_000


@dataclass(frozen=True)
class Span:
    """The pixels that a tile reads and keeps along one axis, in input pixels.

    Attributes:
        start: First pixel of the window.
        stop: One past the last pixel of the window.
        keep_start: First pixel whose restoration is kept.
        keep_stop: One past the last pixel whose restoration is kept.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    def window(self) -> slice:
        """Return the part of the picture to read."""
        return slice(self.start, self.stop)

    def enlarged(self, factor: int) -> Span:
        """Return the same span where every pixel is ``factor`` pixels."""
        ends = (self.start, self.stop, self.keep_start, self.keep_stop)
        return Span(*(factor * end for end in ends))

    def kept(self, scale: int) -> slice:
        """Return where the kept part lies in the result."""
        return slice(self.keep_start * scale, self.keep_stop * scale)

    def kept_of_window(self, scale: int) -> slice:
        """Return where the kept part lies in the restored window."""
        return slice((self.keep_start - self.start) * scale, (self.keep_stop - self.start) * scale)


@dataclass(frozen=True)
class Tile:
    """A window to read and the region of it to keep."""

    rows: Span
    columns: Span

    def enlarged(self, factor: int) -> Tile:
        """Return the same tile where every pixel is ``factor`` × ``factor`` pixels."""
        return Tile(self.rows.enlarged(factor), self.columns.enlarged(factor))


def plan_tiles(height: int, width: int, tile: int, halo: int) -> list[Tile]:
    """Cut a picture into tiles that keep ``tile`` pixels a side, or more at the picture's edges.

    Args:
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        tile: Pixels kept along each side of a tile away from the picture's edges.
        halo: Pixels read around the kept pixels.

    Returns:
        Tiles in reading order. Each reads min(height, tile + 2·halo) × min(width, tile + 2·halo)
        pixels; the kept parts cover the picture exactly once, and every kept pixel has ``halo``
        pixels or the picture's edge on each side.

    Raises:
        UserError: If the tile has no pixels.
    """
    if tile < 1:
        raise UserError(f"a tile of {tile} pixels was requested; choose 1 or more, 128 for example")
    return _plan(height, width, (tile + 2 * halo, tile + 2 * halo), halo)


def plan_default_tiles(height: int, width: int, halo: int, side: int = _DEFAULT_TILE) -> list[Tile]:
    """Cut a picture into tiles that need no more memory than a square tile of ``side`` pixels.

    Args:
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        halo: Pixels read around the kept pixels.
        side: Pixels kept along each side of the square tile.

    Returns:
        Tiles as from ``plan_tiles``, but in windows of any shape with at most (side + 2·halo)²
        pixels: the plan that reads the fewest pixels, halos counted as often as they are read.
    """
    budget = (side + 2 * halo) ** 2
    plans: list[tuple[int, int, int]] = []
    for rows in range(1, height + 1):
        tall = _window_extent(height, rows, halo)
        widest = min(width, budget // tall)
        if widest < width and widest <= 2 * halo:
            continue
        columns = 1 if widest == width else math.ceil((width - 2 * halo) / (widest - 2 * halo))
        wide = _window_extent(width, columns, halo)
        plans.append((rows * columns * tall * wide, tall, wide))
    _, tall, wide = min(plans)
    return _plan(height, width, (tall, wide), halo)


def restore_tiled(
    session: Session,
    image: NDArray[Any],
    tile: int | None = None,
    *,
    ensemble: bool = False,
    progress: bool = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Restore a picture in tiles, in the memory of the two pictures and one tile.

    Args:
        session: The opened artifact.
        image: H × W × 3, or H × W × 1 for a grey picture, which the network gets as three equal
            channels and whose result is their mean; uint8, uint16, or float32 in [0, 1].
        tile: Pixels kept per tile side; None chooses by ``plan_default_tiles``.
        ensemble: Whether to average each tile over its eight orientations.
        progress: Whether to draw a bar when there are several tiles and stderr is a terminal.
        out: Array to write to; None makes a new one.

    Returns:
        scale·H × scale·W × channels in the same type, clamped; integers are rounded half to even.

    Raises:
        UserError: If this is no such picture, it is too large for an artifact whose halo is
            unknown, a tile size does not fit the artifact, or the network returns values far
            outside [0, 1].
    """
    check_picture(image, _TYPES, (1, 3))
    height, width, channels = image.shape
    white = _white(image)
    scale = session.scale
    whole = session.sides.reflected(image)
    size = (whole.shape[0], whole.shape[1])
    tiles = _tiles_for(session, *size, tile)
    if ensemble and session.fixed_size and session.fixed_size[0] != session.fixed_size[1]:
        raise UserError(
            "the self-ensemble turns the picture and needs a square input; this artifact's is "
            f"fixed at {session.fixed_size[0]}×{session.fixed_size[1]}: restore without it"
        )
    if out is None:
        out = np.empty((scale * height, scale * width, channels), image.dtype)
    hidden = None if progress and len(tiles) > 1 else True
    bar = partial(tqdm, tiles, unit="tile", leave=False, disable=hidden)
    with ExitStack() as stack:
        cut = _cut_session(session, tiles, size, stack)
        if cut is None:
            run = _running(session)
        else:
            orientations = range(len(self_ensemble.ORIENTATIONS) if ensemble else 1)
            pooled = [_pooled(cut, whole, bar(desc="pooling"), one) for one in orientations]
            run = _running_cut(cut, pooled)
        for one in bar():
            window = _as_input(_window(whole, one), white, session.fixed_size)
            restored = self_ensemble.restore(run, window) if ensemble else run(window, 0)
            kept = restored[one.rows.kept_of_window(scale), one.columns.kept_of_window(scale)]
            _check_values(kept)
            if channels == 1:
                kept = kept.mean(axis=2, keepdims=True)
            kept = np.clip(kept, 0, 1) * np.float32(white)
            integer = np.issubdtype(image.dtype, np.integer)
            target = out[one.rows.kept(scale), one.columns.kept(scale)]
            kept = kept[: target.shape[0], : target.shape[1]]
            target[...] = np.rint(kept) if integer else kept
    return out


def _check_values(restored: FloatPicture) -> None:
    """Refuse values that are not finite or far outside [0, 1], before clamping hides them.

    Raises:
        UserError: If there are such values.
    """
    largest = float(np.abs(restored).max())
    if not math.isfinite(largest):
        raise UserError(
            "the network returned values that are not finite; its weights are damaged, or its "
            "arithmetic overflows: export it again, or as float32"
        )
    if largest > _LARGEST_VALUE:
        raise UserError(
            f"the network returned values up to {largest:.0f}, expected [0, 1]; export it so that "
            "it takes and returns pictures in [0, 1] and not, for example, in [0, 255]"
        )


_Run = Callable[[FloatPicture, int], FloatPicture]
"""Restores a window, given the index of its orientation in the self-ensemble."""


def _running(session: Session) -> _Run:
    return lambda window, orientation: session.run(window)


def _running_cut(cut: Session, pooled: Sequence[FloatPicture]) -> _Run:
    return lambda window, orientation: cut.run_pooled(window, pooled[orientation])[0]


def _pooled(
    cut: Session, image: NDArray[Any], tiles: Iterable[Tile], orientation: int
) -> FloatPicture:
    """Return the average of a network's features over a whole picture, C values."""
    white = _white(image)
    total: NDArray[np.float64] | None = None
    for one in tiles:
        window = _as_input(_window(image, one), white, cut.fixed_size)
        turned = self_ensemble.oriented(window, orientation)
        features = self_ensemble.turned_back(cut.run_pooled(turned, None)[1], orientation)
        kept = features[one.rows.kept_of_window(1), one.columns.kept_of_window(1)]
        part = kept.sum(axis=(0, 1), dtype=np.float64)
        total = part if total is None else total + part
    assert total is not None
    average: FloatPicture = (total / (image.shape[0] * image.shape[1])).astype(np.float32)
    return average


def _window(image: NDArray[Any], tile: Tile) -> NDArray[Any]:
    return image[tile.rows.window(), tile.columns.window()]


def _white(image: NDArray[Any]) -> float:
    integer = np.issubdtype(image.dtype, np.integer)
    return float(np.iinfo(image.dtype).max) if integer else 1.0


def _cut_session(
    session: Session, tiles: Sequence[Tile], size: tuple[int, int], stack: ExitStack
) -> Session | None:
    """Return the session of a file cut at its pooling, if these tiles need one, or None.

    A file that pools without such a cut restores a whole picture in a single window only.
    """
    if session.pooling is not None:
        return session
    whole = len(tiles) == 1 and session.fixed_size in (None, size)
    if session.open_tiled is None or whole:
        return None
    return stack.enter_context(session.open_tiled())


def _tiles_for(session: Session, height: int, width: int, tile: int | None) -> list[Tile]:
    whole = _plan(height, width, (height, width), 0)
    if session.fixed_size:
        if tile is not None:
            raise UserError(
                f"tiles of {tile} pixels were requested, but this artifact's input is fixed at "
                f"{session.fixed_size[0]}×{session.fixed_size[1]}; leave --tile out"
            )
        if height <= session.fixed_size[0] and width <= session.fixed_size[1]:
            return whole
        halo = _aligned_halo(session)
        return _fixed_tiles(session.fixed_size, halo, height, width, session.whole)
    if session.halo is None:
        if session.whole and (tile is not None or height * width > _LARGEST_UNTILED):
            raise UserError(
                f"a picture of {width}×{height} in tiles: this network averages over the whole "
                f"picture and cannot be tiled; it restores up to {_LARGEST_UNTILED:,} pixels, "
                "without --tile"
            )
        if tile is not None or height * width > _LARGEST_UNTILED:
            raise UserError(
                f"tiling a picture of {width}×{height} needs the artifact's halo, which "
                "manifest.json beside it gives; put the artifact back into its bundle"
            )
        return whole
    multiple = session.sides.multiple
    if tile is None:
        side = _DEFAULT_TILE if session.scale > 1 else _DEFAULT_TILE_AT_SCALE_1
        # In blocks of pixels, so that windows start and end where the network's blocks do.
        extents = (height, width, session.halo, side)
        blocks = (-(-extent // multiple) for extent in extents)
        return [one.enlarged(multiple) for one in plan_default_tiles(*blocks)]
    if tile >= 1:
        tile = session.sides.fitting(tile)
    halo = _aligned_halo(session)
    assert halo is not None
    return plan_tiles(height, width, tile, halo)


def _aligned_halo(session: Session) -> int | None:
    """Return the least multiple of the network's blocks of pixels that covers its halo."""
    multiple = session.sides.multiple
    return None if session.halo is None else -(-session.halo // multiple) * multiple


def _fixed_tiles(
    size: tuple[int, int], halo: int | None, height: int, width: int, whole: bool
) -> list[Tile]:
    if whole:
        raise UserError(
            f"this network averages over the whole picture, and the artifact's input is fixed at "
            f"{size[0]}×{size[1]}: a picture of {width}×{height} needs one exported for its size"
        )
    if halo is None:
        raise UserError(
            f"a picture of {width}×{height} needs tiles, this artifact's input being fixed at "
            f"{size[0]}×{size[1]}, and the halo, which manifest.json beside it gives; put the "
            "artifact back into its bundle"
        )
    # An axis with one window needs no halo inside it.
    if any(
        extent > window <= 2 * halo for extent, window in zip((height, width), size, strict=True)
    ):
        raise UserError(
            f"this artifact's input is fixed at {size[0]}×{size[1]}, which its halo of {halo} "
            f"pixels fills; export it at {2 * halo + 64}×{2 * halo + 64} or without a fixed size"
        )
    return _plan(height, width, size, halo)


def _plan(height: int, width: int, window: tuple[int, int], halo: int) -> list[Tile]:
    rows = _spans(height, window[0], halo)
    columns = _spans(width, window[1], halo)
    return [Tile(row, column) for row in rows for column in columns]


def _spans(extent: int, window: int, halo: int) -> list[Span]:
    """Cover ``extent`` with windows; the last is shifted inwards to end at the edge."""
    if window >= extent:
        return [Span(0, extent, 0, extent)]
    spans = []
    kept = 0
    while kept < extent:
        start = min(max(0, kept - halo), extent - window)
        stop = start + window
        keep_stop = extent if stop == extent else stop - halo
        spans.append(Span(start, stop, kept, keep_stop))
        kept = keep_stop
    return spans


def _window_extent(extent: int, count: int, halo: int) -> int:
    """Return the smallest window extent with which ``count`` windows cover ``extent``."""
    return min(extent, math.ceil((extent + 2 * halo * (count - 1)) / count))


def _as_input(
    window: NDArray[Any], white: float, fixed_size: tuple[int, int] | None
) -> FloatPicture:
    image = window.astype(np.float32) / np.float32(white)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if fixed_size and image.shape[:2] != fixed_size:
        below, right = fixed_size[0] - image.shape[0], fixed_size[1] - image.shape[1]
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    return image
