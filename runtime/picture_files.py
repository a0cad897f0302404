"""Reading and writing picture files (placeholder while training starts)."""

from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from PIL import Image

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True)
class PictureFile:
    pixels: np.ndarray


def read_picture(path: Path) -> PictureFile:
    return PictureFile(np.array(Image.open(path).convert("RGB")))
