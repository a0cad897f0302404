"""PSNR and SSIM of a network or an artifact on pictures, by the protocol of the literature.

The low-resolution pictures are MATLAB's bicubic reduction of the high-resolution ones unless they
come with them; scores are taken on Y after cutting a border of ``scale`` pixels (see
``training.metrics``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn
from tqdm import tqdm

from export.parity import Restore as RestoreFloat
from export.parity import largest_difference, parity_pictures, restore_with
from runtime.errors import UserError
from runtime.sessions import FloatPicture, Session
from runtime.tiling import restore_tiled
from training import bicubic
from training.metrics import psnr_y, ssim_y
from training.pictures import Picture, picture_paths, read_rgb

Restore = Callable[[Picture], Picture]
"""From a low-resolution picture, H × W × 3 uint8, to the restored one, scale·H × scale·W × 3."""

_SSIM_WINDOW = 11


@dataclass(frozen=True)
class Pair:
    """A picture and its reduction.

    Attributes:
        name: File name, for the rows of a result.
        low: h × w × 3, uint8.
        high: scale·h × scale·w × 3, uint8.
    """

    name: str
    low: Picture
    high: Picture

    @classmethod
    def reduced(cls, name: str, picture: Picture, scale: int) -> Pair:
        """Return a picture, cut to a multiple of ``scale``, and its bicubic reduction."""
        high = bicubic.crop_to_multiple(picture, scale)
        if 0 in high.shape:
            raise UserError(f"{name}: {_size(picture)} is too small to be reduced {scale} times")
        return cls(name, bicubic.reduce(high, scale), high)


class Pairs(Sized, Protocol):
    """Pairs of a known number: a list, or a folder that is read one by one."""

    def __iter__(self) -> Iterator[Pair]:
        """Go through the pairs."""
        ...


@dataclass(frozen=True)
class FolderPairs:
    """The pairs of a folder, read when they are needed.

    Attributes:
        high: Paths of the high-resolution pictures.
        low: Paths of their reductions, or None to reduce them here.
        scale: Upscaling factor.
    """

    high: tuple[Path, ...]
    low: tuple[Path, ...] | None
    scale: int

    def __len__(self) -> int:
        return len(self.high)

    def __iter__(self) -> Iterator[Pair]:
        for index, path in enumerate(self.high):
            if self.low is None:
                yield Pair.reduced(path.name, read_rgb(path), self.scale)
            else:
                yield self._given(path, self.low[index])

    def _given(self, high: Path, low: Path) -> Pair:
        large, small = read_rgb(high), read_rgb(low)
        large = bicubic.crop_to_multiple(large, self.scale)
        expected = (small.shape[0] * self.scale, small.shape[1] * self.scale)
        if large.shape[:2] != expected:
            raise UserError(
                f"{low}: {_size(small)} is not {high.name} ({_size(large)}) reduced {self.scale} "
                "times; put matching pictures into the two folders"
            )
        return Pair(high.name, small, large)


def pairs_in(folder: Path, scale: int) -> FolderPairs:
    """Find the pictures to score on.

    Args:
        folder: High-resolution pictures, or a folder ``HR`` of them with their reductions beside
            it in ``LRx<scale>`` or ``LR`` (names equal, or with ``x<scale>`` at the end).
        scale: Upscaling factor.

    Raises:
        UserError: If there are no pictures, or one has no reduction.
    """
    nested = folder / "HR"
    high = picture_paths(nested if nested.is_dir() else folder)
    reductions = (folder / f"LRx{scale}", folder / "LR")
    lower = next((one for one in reductions if nested.is_dir() and one.is_dir()), None)
    if lower is None:
        return FolderPairs(tuple(high), None, scale)
    by_stem = {path.stem.removesuffix(f"x{scale}"): path for path in picture_paths(lower)}
    missing = next((path for path in high if path.stem not in by_stem), None)
    if missing is not None:
        raise UserError(f"{lower}: holds no reduction of {missing.name}; add it or remove {lower}")
    return FolderPairs(tuple(high), tuple(by_stem[path.stem] for path in high), scale)


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture.

    Attributes:
        name: Its file name.
        psnr_y: PSNR of Y in dB; inf if the restored picture is equal.
        ssim_y: SSIM of Y; None if the picture is smaller than SSIM's window of 11 × 11.
    """

    name: str
    psnr_y: float
    ssim_y: float | None


@dataclass(frozen=True)
class Scores:
    """Mean scores over pictures, and the score of each.

    Attributes:
        psnr_y: Mean PSNR of Y in dB.
        ssim_y: Mean SSIM of Y over the pictures that have one; None if none has.
        rows: One for each picture.
    """

    psnr_y: float
    ssim_y: float | None
    rows: tuple[PictureScore, ...]

    @property
    def pictures(self) -> int:
        """How many pictures were scored."""
        return len(self.rows)


def score(restore: Restore, pairs: Pairs, scale: int, progress: bool = False) -> Scores:
    """Score a restorer.

    Args:
        restore: From low to high resolution: ``session_restorer``, ``network_restorer``, or
            ``bicubic.enlarge`` for the baseline.
        pairs: The pictures.
        scale: Upscaling factor; so many pixels are cut at each edge.
        progress: Whether to show a progress bar (never when stderr is no terminal).

    Raises:
        UserError: If a picture has nothing left without its border, or a result is of another
            size than its picture.
    """
    rows = []
    bar = tqdm(pairs, total=len(pairs), unit="picture", leave=False, disable=_hidden(progress))
    for pair in bar:
        rows.append(_score_one(restore(pair.low), pair, scale))
    if not rows:
        raise UserError("no pictures to score; name a folder that holds some")
    similarities = [row.ssim_y for row in rows if row.ssim_y is not None]
    return Scores(
        psnr_y=float(np.mean([row.psnr_y for row in rows])),
        ssim_y=float(np.mean(similarities)) if similarities else None,
        rows=tuple(rows),
    )


def psnr_loss(source: Scores, artifact: Scores) -> float:
    """Return the dB that an artifact lost against its source on the same pictures.

    Raises:
        ValueError: If the two were scored on different pictures.
    """
    if [row.name for row in source.rows] != [row.name for row in artifact.rows]:
        raise ValueError("a loss is defined on the same pictures only")
    if math.isinf(source.psnr_y) and math.isinf(artifact.psnr_y):
        return 0.0
    return source.psnr_y - artifact.psnr_y


def session_restorer(session: Session, tile: int | None = None) -> Restore:
    """Return a restorer that runs an artifact, in tiles where the picture is large."""
    return lambda picture: restore_tiled(session, picture, tile)


def network_restorer(module: nn.Module) -> Restore:
    """Return a restorer that runs a torch module of one scale (see ``AtScale``)."""
    restore = restore_with(module.eval())
    return lambda picture: _to_uint8(restore(_to_float(picture)))


def max_abs_diff(
    session: Session, reference: RestoreFloat, pictures: Sequence[Picture] | None = None
) -> float:
    """Return the largest difference between an artifact's output and its source's, in [0, 1].

    Args:
        session: The artifact.
        reference: The source network (see ``restore_with``).
        pictures: Inputs, uint8; None for seeded synthetic ones. An artifact of fixed size sees
            the top left corner of each that is large enough.
    """
    size = session.fixed_size
    if pictures is None:
        return largest_difference(session.run, reference, parity_pictures(size))
    if size is None:
        inputs = [_to_float(picture) for picture in pictures]
    else:
        large = [p for p in pictures if p.shape[0] >= size[0] and p.shape[1] >= size[1]]
        inputs = [_to_float(picture[: size[0], : size[1]]) for picture in large]
    return largest_difference(session.run, reference, inputs or parity_pictures(size))


def _score_one(restored: Picture, pair: Pair, scale: int) -> PictureScore:
    if restored.shape != pair.high.shape:
        raise UserError(
            f"{pair.name}: restored to {_size(restored)}, expected {_size(pair.high)}; is this an "
            f"artifact for ×{scale}?"
        )
    inner = min(pair.high.shape[:2]) - 2 * scale
    if inner < 1:
        raise UserError(
            f"{pair.name}: {_size(pair.high)} has nothing left without the border of {scale} "
            f"pixels; remove it, scored pictures need at least {2 * scale + 1} pixels a side"
        )
    similarity = ssim_y(restored, pair.high, scale) if inner >= _SSIM_WINDOW else None
    return PictureScore(pair.name, psnr_y(restored, pair.high, scale), similarity)


def _to_float(picture: Picture) -> FloatPicture:
    return picture.astype(np.float32) / np.float32(255)


def _to_uint8(picture: FloatPicture) -> Picture:
    pixels: Picture = np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels


def _hidden(progress: bool) -> bool | None:
    """Return tqdm's ``disable``: None hides the bar when stderr is no terminal."""
    return None if progress else True


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
