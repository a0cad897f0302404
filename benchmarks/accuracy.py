"""PSNR and SSIM of a network or an artifact on pictures, by the protocol of the literature.

Super-resolution: the low-resolution pictures are MATLAB's bicubic reduction of the high-resolution
ones unless they come with them; scores are taken on Y after cutting a border of ``scale`` pixels.
At scale 1 pictures are distorted region by region (``training.degradations.shdd``) unless they come
so, scores are taken on RGB without a crop (``training.metrics``), and each kind of region is scored
too.
"""

from __future__ import annotations

import math
import re
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
from runtime.pictures.files import picture_paths
from runtime.session import FloatPicture, Session
from runtime.tiling import restore_tiled
from training.data.pictures import Picture, read_rgb
from training.degradations import bicubic, shdd
from training.degradations.levels import Level
from training.metrics import psnr_at, ssim_at

Restore = Callable[[Picture], Picture]
"""From a low-resolution picture, H × W × 3 uint8, to the restored one, scale·H × scale·W × 3."""

DISTORTION_SEED = 2020
"""Of the distortions that pictures are scored with: they are always the same."""

_SSIM_WINDOW = 11


@dataclass(frozen=True)
class Pair:
    """A picture and its reduction.

    Attributes:
        name: File name, for the rows of a result.
        low: h × w × 3, uint8.
        high: scale·h × scale·w × 3, uint8.
        regions: What befell the picture where, at scale 1.
    """

    name: str
    low: Picture
    high: Picture
    regions: tuple[shdd.Region, ...] = ()

    @classmethod
    def damaged(cls, name: str, picture: Picture, scale: int, level: Level) -> Pair:
        """Return a picture and its reduction, or at scale 1 its distortion."""
        return (
            cls.reduced(name, picture, scale) if scale > 1 else cls.distorted(name, picture, level)
        )

    @classmethod
    def distorted(cls, name: str, picture: Picture, level: Level) -> Pair:
        """Return a picture and its distortion, which the name and the level decide."""
        found = shdd.distort(picture, level, DISTORTION_SEED, Path(name).stem, 0)
        return cls(name, found.pixels, picture, found.regions)

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
        low: Paths of their damaged forms, or None to damage them here.
        scale: Upscaling factor.
        level: Of the distortions at scale 1.
    """

    high: tuple[Path, ...]
    low: tuple[Path, ...] | None
    scale: int
    level: Level = "moderate"

    def __len__(self) -> int:
        return len(self.high)

    def __iter__(self) -> Iterator[Pair]:
        for index, path in enumerate(self.high):
            if self.low is None:
                yield Pair.damaged(path.name, read_rgb(path), self.scale, self.level)
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
        explained = low.with_suffix(".json")
        regions = shdd.read_explanation(explained).regions if explained.is_file() else ()
        return Pair(low.name if self.scale == 1 else high.name, small, large, regions)


def pairs_in(folder: Path, scale: int, level: Level = "moderate") -> FolderPairs:
    """Find the pictures to score on.

    Args:
        folder: High-resolution pictures, or a folder ``HR`` of them with their reductions beside
            it in ``LRx<scale>`` or ``LR`` (names equal, or with ``x<scale>`` at the end). At scale
            1 ``LR`` holds distorted pictures, several of each (names equal, or with the number of
            the version at the end: ``bird_03``), as 'reslite make-dataset' writes them.
        scale: Upscaling factor.
        level: How pictures that come alone are distorted at scale 1.

    Raises:
        UserError: If there are no pictures, or one has no reduction.
    """
    nested = folder / "HR"
    high = picture_paths(nested if nested.is_dir() else folder)
    reductions = (folder / f"LRx{scale}", folder / "LR")
    lower = next((one for one in reductions if nested.is_dir() and one.is_dir()), None)
    if lower is None:
        return FolderPairs(tuple(high), None, scale, level)
    if scale == 1:
        return _versions(high, picture_paths(lower))
    by_stem = {path.stem.removesuffix(f"x{scale}"): path for path in picture_paths(lower)}
    missing = next((path for path in high if path.stem not in by_stem), None)
    if missing is not None:
        raise UserError(f"{lower}: holds no reduction of {missing.name}; add it or remove {lower}")
    return FolderPairs(tuple(high), tuple(by_stem[path.stem] for path in high), scale)


def _versions(originals: Sequence[Path], distorted: Sequence[Path]) -> FolderPairs:
    """Pair every distorted picture with its original."""
    by_stem = {path.stem: path for path in originals}
    high = []
    for path in distorted:
        stem = path.stem if path.stem in by_stem else re.sub(r"_\d+$", "", path.stem)
        if stem not in by_stem:
            raise UserError(f"{path}: its original is missing; put it into {originals[0].parent}")
        high.append(by_stem[stem])
    return FolderPairs(tuple(high), tuple(distorted), 1)


@dataclass(frozen=True)
class RegionScore:
    """The squared errors of one region, summed over its samples.

    Attributes:
        kind: What befell it.
        samples: How many: pixels times channels.
        before: As it was distorted.
        after: As it was restored.
    """

    kind: shdd.Kind
    samples: int
    before: float
    after: float


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture.

    Attributes:
        name: Its file name.
        psnr: PSNR in dB (see ``psnr_at``); inf if the restored picture is equal.
        ssim: SSIM; None if the picture is smaller than SSIM's window of 11 × 11.
        regions: Of its regions, at scale 1.
    """

    name: str
    psnr: float
    ssim: float | None
    regions: tuple[RegionScore, ...] = ()


@dataclass(frozen=True)
class Scores:
    """Mean scores over pictures, and the score of each.

    Attributes:
        psnr: Mean PSNR in dB over the pictures that are not equal to their originals, for which it
            is infinite; inf if all are.
        ssim: Mean SSIM over the pictures that have one; None if none has.
        rows: One for each picture.
    """

    psnr: float
    ssim: float | None
    rows: tuple[PictureScore, ...]

    @property
    def pictures(self) -> int:
        """How many pictures were scored."""
        return len(self.rows)

    def by_kind(self) -> dict[shdd.Kind, tuple[float, float]]:
        """Return the PSNR in dB before and after restoration of every kind of region.

        It is that of the mean squared error over all samples of the kind; inf where that is 0.
        """
        found: dict[shdd.Kind, tuple[float, float]] = {}
        for kind in shdd.STRENGTHS:
            regions = [one for row in self.rows for one in row.regions if one.kind == kind]
            samples = sum(one.samples for one in regions)
            if samples:
                before, after = (sum(one.before for one in regions), sum(o.after for o in regions))
                found[kind] = (_psnr_of(before / samples), _psnr_of(after / samples))
        return found


def score(restore: Restore, pairs: Pairs, scale: int, progress: bool = False) -> Scores:
    """Score a restorer.

    Args:
        restore: From low to high resolution: ``session_restorer``, ``network_restorer``, or
            ``baseline``.
        pairs: The pictures.
        scale: Upscaling factor; it decides the protocol.
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
    unequal = [row.psnr for row in rows if math.isfinite(row.psnr)]
    similarities = [row.ssim for row in rows if row.ssim is not None]
    return Scores(
        psnr=float(np.mean(unequal)) if unequal else math.inf,
        ssim=float(np.mean(similarities)) if similarities else None,
        rows=tuple(rows),
    )


def baseline(scale: int) -> Restore:
    """Return what needs no network: bicubic enlargement; at scale 1 the picture as it is."""
    return lambda picture: bicubic.enlarge(picture, scale) if scale > 1 else picture


def baseline_name(scale: int) -> str:
    """Return what tables call the baseline."""
    return "bicubic" if scale > 1 else "distorted"


def psnr_name(scale: int) -> str:
    """Return what tables call the PSNR of a scale's protocol."""
    return "PSNR-Y" if scale > 1 else "PSNR"


def ssim_name(scale: int) -> str:
    """Return what tables call the SSIM of a scale's protocol."""
    return "SSIM-Y" if scale > 1 else "SSIM"


def finite(value: float | None) -> float | None:
    """Return ``value``, or None for what JSON cannot say: the PSNR of equal pictures."""
    return value if value is not None and math.isfinite(value) else None


def psnr_loss(source: Scores, artifact: Scores) -> float:
    """Return the dB that an artifact lost against its source on the same pictures.

    Raises:
        ValueError: If the two were scored on different pictures.
    """
    if [row.name for row in source.rows] != [row.name for row in artifact.rows]:
        raise ValueError("a loss is defined on the same pictures only")
    if math.isinf(source.psnr) and math.isinf(artifact.psnr):
        return 0.0
    return source.psnr - artifact.psnr


def session_restorer(session: Session, tile: int | None = None) -> Restore:
    """Return a restorer that runs an artifact, in tiles where the picture is large."""
    return lambda picture: restore_tiled(session, picture, tile)


def whole_restorer(session: Session) -> RestoreFloat:
    """Return a restorer of float pictures that fit one tile, whatever kind of file it is."""
    return session.run if session.pooling is None else lambda image: restore_tiled(session, image)


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
    restore = whole_restorer(session)
    if pictures is None:
        return largest_difference(restore, reference, parity_pictures(size))
    if size is None:
        inputs = [_to_float(picture) for picture in pictures]
    else:
        large = [p for p in pictures if p.shape[0] >= size[0] and p.shape[1] >= size[1]]
        inputs = [_to_float(picture[: size[0], : size[1]]) for picture in large]
    return largest_difference(restore, reference, inputs or parity_pictures(size))


def _score_one(restored: Picture, pair: Pair, scale: int) -> PictureScore:
    if restored.shape != pair.high.shape:
        raise UserError(
            f"{pair.name}: restored to {_size(restored)}, expected {_size(pair.high)}; is this an "
            f"artifact for ×{scale}?"
        )
    inner = min(pair.high.shape[:2]) - (2 * scale if scale > 1 else 0)
    if inner < 1:
        raise UserError(
            f"{pair.name}: {_size(pair.high)} has nothing left without the border of {scale} "
            f"pixels; remove it, scored pictures need at least {2 * scale + 1} pixels a side"
        )
    similarity = ssim_at(scale, restored, pair.high) if inner >= _SSIM_WINDOW else None
    quality = psnr_at(scale, restored, pair.high)
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


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
