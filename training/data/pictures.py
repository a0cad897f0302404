"""Training and evaluation pictures, decoded once into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError
from runtime.pictures.files import read_picture

Picture = NDArray[np.uint8]


def data_folder() -> Path | None:
    """Return the folder that the environment variable ``RESLITE_DATA`` names, or None if unset.

    The folder holds the standard pictures: ``train/``, ``valid/`` and the test sets.

    Raises:
        UserError: If the folder does not exist.
    """
    named = os.environ.get("RESLITE_DATA")
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise UserError(f"RESLITE_DATA={named}: no such folder; unset it or correct the path")
    return folder.resolve()


def read_rgb(path: Path) -> Picture:
    """Read one picture as H × W × 3 uint8; grey is spread over three channels, alpha dropped."""
    pixels = read_picture(path).pixels
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def read_all(paths: Sequence[Path]) -> list[Picture]:
    """Read pictures, several at once, in the order of ``paths``."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(read_rgb, paths))
