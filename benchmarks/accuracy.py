"""PSNR and SSIM of a network or an artifact on pictures, as its task says (``training.tasks``).

Pictures that come alone are degraded here, always in the same way; others come with their degraded
forms. Where a degradation differs from region to region, each kind of region is scored, too.
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
from training.degradations.bicubic import crop_to_multiple
from training.degradations.degradation import Region, version_random
from training.degradations.shdd import read_explanation
from training.tasks import TASKS, EvaluationSet, Task

Restore = Callable[[Picture], Picture]
"""From a low-resolution picture, H × W × 3 uint8, to the restored one, scale·H × scale·W × 3."""

DEGRADATION_SEED = 2020
"""Of the degradations that pictures are scored with: they are always the same."""

_SSIM_WINDOW = 11


@dataclass(frozen=True)
class Pair:
    """A picture and its degraded form.

    Attributes:
        name: File name, for the rows of a result.
        low: h × w × 3, uint8.
        high: scale·h × scale·w × 3, uint8.
        task: What leads back from ``low`` to ``high``, and how a result is scored.
        regions: What befell the picture where, for degradations that differ from region to region.
    """

    name: str
    low: Picture
    high: Picture
    task: Task
    regions: tuple[Region, ...] = ()

    @property
    def scale(self) -> int:
        """Upscaling factor."""
        return int(self.high.shape[0] // self.low.shape[0])

    @classmethod
    def degraded(cls, name: str, picture: Picture, task: Task, scale: int) -> Pair:
        """Return a picture, cut to a multiple of ``scale``, and its degraded form.

        Nothing but the name and the task decide what is random in it.
        """
        high = crop_to_multiple(picture, scale)
        if 0 in high.shape:
            raise UserError(f"{name}: {_size(picture)} is too small to be reduced {scale} times")
        random = version_random(DEGRADATION_SEED, Path(name).stem, 0)
        found = task.degradation.degrade(high, scale, random)
        return cls(name, found.pixels, high, task, found.regions)


class Pairs(Sized, Protocol):
    """Pairs of a known number: a list, or a folder that is read one by one."""

    def __iter__(self) -> Iterator[Pair]:
        """Go through the pairs."""
        ...


@dataclass(frozen=True)
class FolderPairs:
    """The pairs of a folder, read when they are needed.

    Attributes:
        paths: Of every picture, and of its degraded form; None to degrade it here.
        task: What befell them.
        scale: Upscaling factor.
    """

    paths: tuple[tuple[Path, Path | None], ...]
    task: Task
    scale: int

    @property
    def come_degraded(self) -> bool:
        """Whether degraded forms lie beside the pictures."""
        return any(low is not None for _, low in self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Pair]:
        for high, low in self.paths:
            if low is None:
                yield Pair.degraded(high.name, read_rgb(high), self.task, self.scale)
            else:
                yield self._given(high, low)

    def _given(self, high: Path, low: Path) -> Pair:
        large, small = read_rgb(high), read_rgb(low)
        large = crop_to_multiple(large, self.scale)
        expected = (small.shape[0] * self.scale, small.shape[1] * self.scale)
        if large.shape[:2] != expected:
            raise UserError(
                f"{low}: {_size(small)} is not {high.name} ({_size(large)}) reduced {self.scale} "
                "times; put matching pictures into the two folders"
            )
        degradation, explanation = self.task.degradation, low.with_suffix(".json")
        explained = bool(degradation.kinds) and explanation.is_file()
        regions = read_explanation(explanation).regions if explained else ()
        name = low.name if degradation.versions > 1 else high.name
        return Pair(name, small, large, self.task, regions)


def pairs_in(folder: Path, task: Task, scale: int) -> FolderPairs:
    """Find the pictures to score on.

    Args:
        folder: High-resolution pictures, or a folder ``HR`` of them with their degraded forms
            beside it in ``LRx<scale>`` or ``LR`` (names equal, or with ``x<scale>`` at the end).
            Where a degradation is random, ``LR`` may hold several versions of each (names equal, or
            with the number of the version at the end: ``bird_03``), as 'reslite make-dataset'
            writes them.
        task: What befell them, or is to befall those that come alone.
        scale: Upscaling factor.

    Raises:
        UserError: If there are no pictures, or one has no counterpart.
    """
    nested = folder / "HR"
    high = picture_paths(nested if nested.is_dir() else folder)
    reductions = (folder / f"LRx{scale}", folder / "LR")
    lower = next((one for one in reductions if nested.is_dir() and one.is_dir()), None)
    if lower is None:
        if nested.is_dir():
            _refuse_unknown_folders(folder, scale)
        return FolderPairs(tuple((path, None) for path in high), task, scale)
    if task.degradation.versions > 1:
        return FolderPairs(_versions(high, picture_paths(lower), scale), task, scale)
    low = picture_paths(lower)
    partners = [_partner(path, high, low, scale) for path in high]
    return FolderPairs(tuple(zip(high, partners, strict=True)), task, scale)


def _partner(path: Path, high: Sequence[Path], low: Sequence[Path], scale: int) -> Path:
    """Return the reduction of ``path``: of equal name, else named as data sets do.

    Those are ``0801x4`` (DIV2K, Flickr2K), ``baby_x4`` (BasicSR) and ``Canon_001_LR4`` for
    ``Canon_001_HR`` (RealSR). A reduction whose name is another original's is that one's.

    Raises:
        UserError: If there is none, or more than one.
    """
    base, others = path.stem.removesuffix("_HR"), {one.stem for one in high if one != path}
    named = {f"{path.stem}x{scale}", f"{path.stem}_x{scale}", f"{base}_LR{scale}", f"{base}_LR"}
    for stems in ({path.stem}, named - others):
        found = [one for one in low if one.stem in stems]
        if len(found) > 1:
            raise UserError(
                f"{path.name}: both {found[0].name} and {found[1].name} in {found[0].parent} may "
                "be its reduction; remove one"
            )
        if found:
            return found[0]
    folder = low[0].parent
    raise UserError(f"{folder}: holds no reduction of {path.name}; add it or remove {folder}")


def _refuse_unknown_folders(folder: Path, scale: int) -> None:
    """Refuse to reduce ``HR`` where a folder beside it may hold reductions under another name."""
    known = re.compile(r"HR|LR|LRx\d+")
    for one in sorted(folder.iterdir()):
        if one.is_dir() and not one.name.startswith(".") and not known.fullmatch(one.name):
            raise UserError(
                f"{one}: lies beside HR, where reductions are called LRx{scale} or LR; rename it, "
                "or move it away to have the pictures of HR reduced"
            )


def evaluation_pairs(chosen: EvaluationSet, data: Path, scale: int) -> FolderPairs:
    """Return the pairs of a set of evaluation pictures, whose folders lie below ``data``."""
    random = np.random.default_rng(chosen.seed)
    found: list[tuple[Path, Path | None]] = []
    for name, count in chosen.folders.items():
        paths = picture_paths(data / name)
        order = sorted(random.permutation(len(paths))[:count])
        found += [(paths[index], None) for index in order]
    return FolderPairs(tuple(found), TASKS[chosen.degradation.name], scale)


def _versions(
    originals: Sequence[Path], degraded: Sequence[Path], scale: int
) -> tuple[tuple[Path, Path | None], ...]:
    """Pair every degraded picture with its original."""
    by_stem = {path.stem: path for path in originals}
    found = []
    for path in degraded:
        stem = path.stem.removesuffix(f"x{scale}")
        stem = stem if stem in by_stem else re.sub(r"_\d+$", "", stem)
        if stem not in by_stem:
            raise UserError(f"{path}: its original is missing; put it into {originals[0].parent}")
        found.append((by_stem[stem], path))
    return tuple(found)


@dataclass(frozen=True)
class RegionScore:
    """The squared errors of one region, summed over its samples.

    Attributes:
        kind: What befell it.
        samples: How many: pixels times channels.
        before: As it was degraded.
        after: As it was restored.
    """

    kind: str
    samples: int
    before: float
    after: float


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture.

    Attributes:
        name: Its file name.
        psnr: PSNR in dB, as the task scores it; inf if the restored picture is equal.
        ssim: SSIM; None if the picture is smaller than SSIM's window of 11 × 11.
        regions: Of its regions, where there are some.
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
        kinds: Kinds of regions, in the order of tables.
    """

    psnr: float
    ssim: float | None
    rows: tuple[PictureScore, ...]
    kinds: tuple[str, ...] = ()

    @property
    def pictures(self) -> int:
        """How many pictures were scored."""
        return len(self.rows)

    def by_kind(self) -> dict[str, tuple[float, float]]:
        """Return the PSNR in dB before and after restoration of every kind of region.

        It is that of the mean squared error over all samples of the kind; inf where that is 0.
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
    """Score a restorer as the task of the pairs says.

    Args:
        restore: From low to high resolution: ``session_restorer``, ``network_restorer``, or
            ``baseline``.
        pairs: The pictures, all of one task.
        progress: Whether to show a progress bar (never when stderr is no terminal).

    Raises:
        UserError: If a picture has nothing left without its border, or a result is of another
            size than its picture.
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
    """Return the restorer that needs no network."""
    return lambda picture: task.baseline(picture, scale)


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


def _score_one(restored: Picture, pair: Pair) -> PictureScore:
    scale, scoring = pair.scale, pair.task.scoring
    if restored.shape != pair.high.shape:
        raise UserError(
            f"{pair.name}: restored to {_size(restored)}, expected {_size(pair.high)}; is this an "
            f"artifact for ×{scale}?"
        )
    border = scoring.border(scale)
    inner = min(pair.high.shape[:2]) - 2 * border
    if inner < 1:
        raise UserError(
            f"{pair.name}: {_size(pair.high)} has nothing left without the border of {border} "
            f"pixels; remove it, scored pictures need at least {2 * border + 1} pixels a side"
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


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
