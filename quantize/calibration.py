"""Calibration pictures: the pictures on which the ranges of an int8 network are measured.

They come from a folder that the caller names, else from the training pictures, else from the
photographs inside the installed scikit-image; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from runtime.errors import UserError
from runtime.manifest import Calibration, sha256_of
from runtime.pictures.files import picture_paths
from runtime.sides import Sides
from training.data.pictures import Picture, data_folder, read_rgb
from training.degradations.degradation import version_random
from training.tasks import Task

COUNT = 48
"""Number of crops, and the largest number of pictures."""

_SMALL_COUNT, _SMALL_SIDE = 16, 64
_FEW, _FEW_SIDE = 4, 48
_SMALLEST_CROP = 8
_DEGRADATION_SEED = 48

_SCIKIT_IMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


def calibration_pictures(
    folder: Path | None = None, count: int = COUNT, seed: int = 0
) -> list[Path]:
    """Choose pictures to calibrate on.

    Args:
        folder: A folder of pictures; None for the training pictures of ``RESLITE_DATA``, or else
            the photographs inside scikit-image.
        count: How many at most.
        seed: The same seed chooses the same pictures of a folder.

    Raises:
        UserError: If no pictures are found.
    """
    if folder is None:
        data = data_folder()
        folder = data / "train" if data is not None else None
    paths = picture_paths(folder) if folder is not None else scikit_image_pictures()
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[index] for index in sorted(chosen)]


def scikit_image_pictures() -> list[Path]:
    """Return the photographs that ship inside scikit-image.

    Raises:
        UserError: If scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise UserError(
            "no pictures to calibrate on: name a folder with --calibration DIR, set RESLITE_DATA, "
            "or run: pip install 'reslite[demo]' (scikit-image brings some)"
        )
    folder = Path(found.origin).parent / "data"
    return [path for name in _SCIKIT_IMAGE if (path := folder / name).is_file()]


def calibration_crops(
    paths: Sequence[Path],
    task: Task,
    scale: int,
    count: int = COUNT,
    size: int | None = None,
    seed: int = 0,
) -> list[Picture]:
    """Cut crops from pictures in turn and degrade them.

    Args:
        paths: High-resolution pictures.
        task: The network's task, which brings the degradation.
        scale: Reduction factor.
        count: How many crops.
        size: Side of a crop in low-resolution pixels, less where a picture is smaller; None for
            the task's ``calibration_crop``.
        seed: The same seed cuts the same crops.

    Returns:
        ``count`` low-resolution crops, H × W × 3 uint8.

    Raises:
        UserError: If a picture is too small.
    """
    random = np.random.default_rng(seed)
    size = size or task.calibration_crop
    crops: list[Picture | None] = [None] * count
    # Picture by picture, so that each is decoded once and only one is in memory.
    for first, path in enumerate(paths[:count]):
        picture = read_rgb(path)
        for index in range(first, count, len(paths)):
            crops[index] = _random_crop(random, picture, path, task, scale, size)
    return [crop for crop in crops if crop is not None]


def few_photographs(
    task: Task, scale: int, folder: Path | None = None
) -> list[NDArray[np.float32]]:
    """Return four crops of calibration pictures, H × W × 3 in [0, 1].

    None where there are no pictures, or too small ones: a float file does not depend on them.

    Args:
        task: As for ``calibration_crops``.
        scale: As for ``calibration_crops``.
        folder: As for ``calibration_pictures``.
    """
    try:
        paths = calibration_pictures(folder, _FEW)
        crops = calibration_crops(paths, task, scale, _FEW, _FEW_SIDE)
    except UserError:
        return []
    return [crop.astype(np.float32) / np.float32(255) for crop in crops]


def small_crops(images: Sequence[Tensor], sides: Sides) -> list[Tensor]:
    """Return at most sixteen pictures, each cropped to about 64×64 pixels.

    That is enough to measure what a layer does: each of its channels has thousands of values in
    each picture.

    Args:
        images: 1 × 3 × H × W.
        sides: The heights and widths that the network takes; the pictures have such.
    """
    side = sides.within(_SMALL_SIDE)
    return [image[:, :, :side, :side] for image in images[:_SMALL_COUNT]]


def calibration_record(paths: Sequence[Path]) -> Calibration:
    """Return the record of the pictures in tables and manifests: names and a hash of contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256_of(path)))
    return Calibration(tuple(path.name for path in paths), digest.hexdigest())


def _random_crop(
    random: np.random.Generator, picture: Picture, path: Path, task: Task, scale: int, size: int
) -> Picture:
    height, width = (min(size, side // scale) for side in picture.shape[:2])
    if min(height, width) < _SMALLEST_CROP:
        least = _SMALLEST_CROP * scale
        raise UserError(
            f"{path}: {picture.shape[1]}×{picture.shape[0]} pixels are too few to calibrate "
            f"×{scale}; expected at least {least}×{least}"
        )
    top = int(random.integers(picture.shape[0] - height * scale + 1))
    left = int(random.integers(picture.shape[1] - width * scale + 1))
    window = picture[top : top + height * scale, left : left + width * scale]
    degradation = task.degradation
    version = int(random.integers(1 << 16)) if degradation.versions > 1 else 0
    drawn = version_random(_DEGRADATION_SEED, path.stem, version)
    return degradation.degrade(window, scale, drawn).pixels
