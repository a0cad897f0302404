"""Sources of patches for any degradation: degraded on the training device, or cut from versions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import overload

import numpy as np

from training.data.patches import PatchSource
from training.data.pictures import Picture
from training.degradations.bicubic import crop_to_multiple
from training.degradations.degradation import Degradation, version_random

_KEPT_BYTES = 6 * 2**30  # of versions in memory; further versions are made anew when drawn


def patch_source(
    pictures: Sequence[Picture], degradation: Degradation, scales: Sequence[int], seed: int
) -> PatchSource:
    """Return a source of windows of pictures and of their degraded forms.

    The degraded forms are omitted if the degradation can be computed on patches.

    Args:
        pictures: The originals, H × W × 3 uint8.
        degradation: How the originals are degraded.
        scales: Upscaling factors that patches are drawn for.
        seed: Seed of the degraded versions.
    """
    if (of_windows := degradation.of_windows) is not None:
        # The degradation reads up to its margin beyond the edges of a picture.
        edge = max(map(of_windows.margin, scales))
        edges = ((edge, edge), (edge, edge), (0, 0))
        mirrored = [np.pad(picture, edges, mode="symmetric") for picture in pictures]
        return PatchSource(mirrored, margin=of_windows.margin, edge=edge)
    originals = [picture for picture in pictures for _ in range(degradation.versions)]
    kept = _KEPT_BYTES // len(scales)
    return PatchSource(
        originals,
        {scale: DegradedVersions(pictures, degradation, scale, seed, kept) for scale in scales},
    )


class DegradedVersions(Sequence[Picture]):
    """The degraded versions of pictures, picture by picture, made when first drawn.

    Args:
        pictures: The originals.
        degradation: How the originals are degraded.
        scale: Upscaling factor.
        seed: Seed of the versions.
        kept_bytes: How many bytes of versions stay in memory.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        degradation: Degradation,
        scale: int,
        seed: int,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._pictures, self._degradation = pictures, degradation
        self._scale, self._seed = scale, seed
        self._kept: dict[int, Picture] = {}
        self._room = kept_bytes
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures) * self._degradation.versions

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if (kept := self._kept.get(index)) is not None:
            return kept
        which, version = divmod(index, self._degradation.versions)
        original = crop_to_multiple(self._pictures[which], self._scale)
        random = version_random(self._seed, which, version)
        pixels = self._degradation.degrade(original, self._scale, random).pixels
        with self._lock:  # several threads draw
            if index not in self._kept and pixels.nbytes <= self._room:
                self._kept[index] = pixels
                self._room -= pixels.nbytes
        return pixels
