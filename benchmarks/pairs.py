"""Pictures to score on, each with its degraded form.

Degraded forms are found by their file names; where there are none, the pictures are degraded here
with a fixed seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training.data.pictures import Picture, read_rgb
from training.degradations.bicubic import crop_to_multiple
from training.degradations.degradation import Region, version_random
from training.degradations.shdd import read_explanation
from training.metrics import RGB
from training.tasks import EvaluationSet, Task

DEGRADATION_SEED = 2020
"""Seed of the degradations of scored pictures, fixed so that scores are comparable."""


@dataclass(frozen=True)
class Pair:
    """A picture and its degraded form.

    Attributes:
        name: File name, for the rows of a result.
        low: h × w × 3, uint8.
        high: scale·h × scale·w × 3, uint8.
        task: The task that leads back from ``low`` to ``high`` and scores a result.
        regions: The distorted regions, for degradations that differ between regions.
        given: Whether ``low`` came as a file and was not made here.
    """

    name: str
    low: Picture
    high: Picture
    task: Task
    regions: tuple[Region, ...] = ()
    given: bool = False

    @property
    def scale(self) -> int:
        """Upscaling factor."""
        return int(self.high.shape[0] // self.low.shape[0])

    @classmethod
    def degraded(cls, name: str, picture: Picture, task: Task, scale: int) -> Pair:
        """Return a picture, cut to a multiple of ``scale``, and its degraded form.

        The random numbers depend on the name alone.
        """
        high = crop_to_multiple(picture, scale)
        if 0 in high.shape:
            raise UserError(f"{name}: {size_of(picture)} is too small to be reduced {scale} times")
        random = version_random(DEGRADATION_SEED, Path(name).stem, 0)
        found = task.degradation.degrade(high, scale, random)
        return cls(name, found.pixels, high, task, found.regions)


class Pairs(Sized, Protocol):
    """A known number of pairs: a list, or a folder that is read pair by pair."""

    def __iter__(self) -> Iterator[Pair]:
        """Go through the pairs."""
        ...


@dataclass(frozen=True)
class PairsAgainst:
    """Pairs whose originals are what another file or network makes of the degraded pictures.

    Scores on them tell what a file changes, and not what it is worth: they are of RGB, whole.

    Attributes:
        pairs: The pictures.
        reference: From a degraded picture to what it is compared with.
    """

    pairs: Pairs
    reference: Callable[[Picture], Picture]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        """Restore the pictures one after the other."""
        for pair in self.pairs:
            task = replace(pair.task, scoring=RGB)
            yield replace(pair, high=self.reference(pair.low), task=task, regions=())


@dataclass(frozen=True)
class FolderPairs:
    """The pairs of a folder, read when they are needed.

    Attributes:
        paths: Path of every picture and path of its degraded form, None to degrade it here.
        task: The task whose degradation the pictures have.
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
                f"{low}: {size_of(small)} is not {high.name} ({size_of(large)}) reduced "
                f"{self.scale} times; put matching pictures into the two folders"
            )
        degradation, explanation = self.task.degradation, low.with_suffix(".json")
        explained = bool(degradation.kinds) and explanation.is_file()
        regions = read_explanation(explanation).regions if explained else ()
        name = low.name if degradation.versions > 1 else high.name
        return Pair(name, small, large, self.task, regions, given=True)


def pairs_in(folder: Path, task: Task, scale: int) -> FolderPairs:
    """Find the pictures to score on.

    Args:
        folder: High-resolution pictures, or a folder ``HR`` of them with their degraded forms
            beside it in ``LRx<scale>`` or ``LR`` (names equal, or with ``x<scale>`` at the end).
            Where a degradation is random, ``LR`` may hold several versions of each (names equal, or
            with the number of the version at the end: ``bird_03``), as 'reslite make-dataset'
            writes them.
        task: The task whose degradation the degraded forms have or are given here.
        scale: Upscaling factor.

    Raises:
        UserError: If there are no pictures, or a picture has no counterpart.
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
    """Return the reduction of ``path``: of equal name, else named as in common data sets.

    Their names are ``0801x4`` (DIV2K, Flickr2K), ``baby_x4`` (BasicSR) and ``Canon_001_LR4`` for
    ``Canon_001_HR`` (RealSR). A reduction with the name of another original belongs to that one.

    Raises:
        UserError: If there is no reduction, or more than one.
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
                "or move it elsewhere to have the pictures of HR reduced"
            )


def evaluation_pairs(task: Task, chosen: EvaluationSet, data: Path, scale: int) -> FolderPairs:
    """Return the pairs of a set of evaluation pictures, to be scored as a task says.

    Args:
        task: The task that the set is one of.
        chosen: The set; its degradation takes the place of the task's.
        data: Where the folders of the set lie.
        scale: Upscaling factor.

    Raises:
        UserError: If a folder is missing or holds fewer pictures than the set takes of it.
    """
    random = np.random.default_rng(chosen.seed)
    found: list[tuple[Path, Path | None]] = []
    for name, count in chosen.folders.items():
        paths = picture_paths(data / name)
        if count is not None and len(paths) < count:
            raise UserError(
                f"{data / name}: holds {len(paths)} pictures, {chosen.title} takes {count} of it; "
                "complete the folder"
            )
        order = sorted(random.permutation(len(paths))[:count])
        found += [(paths[index], None) for index in order]
    return FolderPairs(tuple(found), replace(task, degradation=chosen.degradation), scale)


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


def fingerprint(pairs: Pairs) -> str:
    """Return a SHA-256 of what pictures show: sizes and pixels of originals, in order.

    Degraded forms count where they came as files. Those made here do not: rounding may make them
    differ in a level between machines.
    """
    found = hashlib.sha256()
    for pair in pairs:
        for picture in (pair.high, pair.low) if pair.given else (pair.high,):
            found.update(f"{picture.shape}".encode())
            found.update(np.ascontiguousarray(picture).data)
    return found.hexdigest()


def size_of(picture: Picture) -> str:
    """Return width × height of a picture, for messages."""
    return f"{picture.shape[1]}×{picture.shape[0]}"
