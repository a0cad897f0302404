"""PSNR and SSIM of a network or an artifact on pictures, as defined by ``training.tasks``.

Where a degradation differs from region to region, each kind of region is scored, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from tqdm import tqdm

from benchmarks.pairs import Pair, Pairs, size_of
from export.parity import Restore as RestoreFloat
from export.parity import largest_difference, parity_pictures, restore_with
from runtime.errors import UserError
from runtime.session import FloatPicture, Session
from runtime.sides import ANY_SIDES, Sides
from runtime.tiling import restore_tiled
from training.data.pictures import Picture
from training.tasks import Task

Restore = Callable[[Picture], Picture]
"""Turns a degraded picture, H × W × 3 uint8, into the restored one, scale·H × scale·W × 3."""

_SSIM_WINDOW = 11


@dataclass(frozen=True)
class RegionScore:
    """The squared errors of one region, summed over its samples.

    Attributes:
        kind: Kind of the distortion.
        samples: Number of samples: pixels times channels.
        before: Sum for the degraded region, in squared 8-bit levels.
        after: Sum for the restored region, in squared 8-bit levels.
    """

    kind: str
    samples: int
    before: float
    after: float


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture.

    Attributes:
        name: File name of the picture.
        psnr: PSNR in dB, as the task defines it; inf if restored picture and original are equal.
        ssim: SSIM; None if the picture is smaller than SSIM's window of 11 × 11.
        regions: Scores of the regions, if the degradation differs between regions.
    """

    name: str
    psnr: float
    ssim: float | None
    regions: tuple[RegionScore, ...] = ()


@dataclass(frozen=True)
class Scores:
    """Mean scores over pictures, and the score of each.

    Attributes:
        psnr: Mean PSNR in dB over the pictures with a finite PSNR; inf if all pictures equal their
            originals.
        ssim: Mean SSIM over the pictures that have an SSIM; None if none has.
        rows: Scores of each picture.
        kinds: Kinds of regions, in the order of tables.
    """

    psnr: float
    ssim: float | None
    rows: tuple[PictureScore, ...]
    kinds: tuple[str, ...] = ()

    @property
    def pictures(self) -> int:
        """Number of scored pictures."""
        return len(self.rows)

    @property
    def worst(self) -> PictureScore:
        """The picture with the least PSNR, the first of them; inf only if all equal theirs."""
        return min(self.rows, key=lambda row: row.psnr)

    def by_kind(self) -> dict[str, tuple[float, float]]:
        """Return the PSNR in dB before and after restoration of every kind of region.

        It is computed from the mean squared error over all samples of the kind; inf if that is 0.
        """
        found: dict[str, tuple[float, float]] = {}
        for kind in self.kinds:
            regions = [one for row in self.rows for one in row.regions if one.kind == kind]
            samples = sum(one.samples for one in regions)
            if samples:
                before, after = (sum(one.before for one in regions), sum(o.after for o in regions))
                found[kind] = (_psnr_of(before / samples), _psnr_of(after / samples))
        return found


def score(restore: Restore, pairs: Pairs, progress: bool = False) -> Scores:
    """Score a restorer on pairs, by the scoring of their task.

    Args:
        restore: From low to high resolution: ``session_restorer``, ``network_restorer``, or
            ``baseline``.
        pairs: The pictures, all of one task.
        progress: Whether to show a progress bar (never when stderr is no terminal).

    Raises:
        UserError: If a picture has no pixels left without its border, or a result has another size
            than the original.
    """
    rows: list[PictureScore] = []
    kinds: tuple[str, ...] = ()
    bar = tqdm(pairs, total=len(pairs), unit="picture", leave=False, disable=_hidden(progress))
    for pair in bar:
        rows.append(_score_one(restore(pair.low), pair))
        kinds = pair.task.degradation.kinds
    if not rows:
        raise UserError("no pictures to score; name a folder that holds some")
    unequal = [row.psnr for row in rows if math.isfinite(row.psnr)]
    similarities = [row.ssim for row in rows if row.ssim is not None]
    return Scores(
        psnr=float(np.mean(unequal)) if unequal else math.inf,
        ssim=float(np.mean(similarities)) if similarities else None,
        rows=tuple(rows),
        kinds=kinds,
    )


def baseline(task: Task, scale: int) -> Restore:
    """Return the restorer without a network that results of the task are compared with."""
    return lambda picture: task.baseline(picture, scale)


def finite(value: float | None) -> float | None:
    """Return ``value``, or None if it is infinite (equal pictures), which JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def psnr_loss(source: Scores, artifact: Scores) -> float:
    """Return the PSNR in dB that an artifact lost against its source on the same pictures.

    Raises:
        ValueError: If artifact and source were scored on different pictures.
    """
    if [row.name for row in source.rows] != [row.name for row in artifact.rows]:
        raise ValueError("a loss is defined on the same pictures only")
    if math.isinf(source.psnr) and math.isinf(artifact.psnr):
        return 0.0
    return source.psnr - artifact.psnr


def session_restorer(session: Session, tile: int | None = None) -> Restore:
    """Return a restorer that runs an artifact, in tiles if the picture is large."""
    return lambda picture: restore_tiled(session, picture, tile)


def whole_restorer(session: Session) -> RestoreFloat:
    """Return a restorer of float pictures that fit one tile, for any kind of file."""
    return session.run if session.pooling is None else lambda image: restore_tiled(session, image)


def network_restorer(module: nn.Module, sides: Sides = ANY_SIDES) -> Restore:
    """Return a restorer that runs a torch module of one scale (see ``AtScale``).

    Args:
        module: The network.
        sides: The heights and widths it takes; other pictures are reflected.
    """
    restore = restore_with(module.eval(), sides)
    return lambda picture: _to_uint8(restore(_to_float(picture)))


def max_abs_diff(
    session: Session, reference: RestoreFloat, pictures: Sequence[Picture] | None = None
) -> float:
    """Return the largest difference between an artifact's output and its source's, in [0, 1].

    Args:
        session: The artifact.
        reference: The source network (see ``restore_with``).
        pictures: Inputs, uint8; None for seeded synthetic pictures. An artifact of fixed size gets
            the top left corner of each picture that is large enough.
    """
    size = session.fixed_size
    restore = whole_restorer(session)
    if pictures is None:
        return largest_difference(restore, reference, parity_pictures(size))
    if size is None:
        inputs = [_to_float(picture) for picture in pictures]
    else:
        large = [p for p in pictures if p.shape[0] >= size[0] and p.shape[1] >= size[1]]
        inputs = [_to_float(picture[: size[0], : size[1]]) for picture in large]
    return largest_difference(restore, reference, inputs or parity_pictures(size))


def _score_one(restored: Picture, pair: Pair) -> PictureScore:
    scale, scoring = pair.scale, pair.task.scoring
    if restored.shape != pair.high.shape:
        raise UserError(
            f"{pair.name}: restored to {size_of(restored)}, expected {size_of(pair.high)}; is "
            f"this an artifact for ×{scale}?"
        )
    border = scoring.border(scale)
    inner = min(pair.high.shape[:2]) - 2 * border
    if inner < 1:
        raise UserError(
            f"{pair.name}: {size_of(pair.high)} has nothing left without the border of "
            f"{border} pixels; remove it, scored pictures need at least {2 * border + 1} pixels a "
            "side"
        )
    similarity = scoring.ssim(restored, pair.high, scale) if inner >= _SSIM_WINDOW else None
    quality = scoring.psnr(restored, pair.high, scale)
    return PictureScore(pair.name, quality, similarity, tuple(_region_scores(restored, pair)))


def _region_scores(restored: Picture, pair: Pair) -> Iterator[RegionScore]:
    for region in pair.regions:
        window = region.window()
        original = pair.high[window].astype(np.float64)
        before, after = (
            float(np.sum((picture[window] - original) ** 2)) for picture in (pair.low, restored)
        )
        yield RegionScore(region.kind, original.size, before, after)


def _psnr_of(error: float) -> float:
    """Return the PSNR in dB of a mean squared error of 8-bit samples."""
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else math.inf


def _to_float(picture: Picture) -> FloatPicture:
    return picture.astype(np.float32) / np.float32(255)


def _to_uint8(picture: FloatPicture) -> Picture:
    pixels: Picture = np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels


def _hidden(progress: bool) -> bool | None:
    """Return tqdm's ``disable``: None hides the bar when stderr is no terminal."""
    return None if progress else True
