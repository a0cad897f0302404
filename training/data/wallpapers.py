"""Training pictures from Ubuntu's wallpaper packages: which photographs, and how far reduced.

``wallpapers.csv`` names the photographs that were chosen from 161 packages: sharp ones, each once,
reduced until bicubic interpolation restores them (×4) no better than DIV2K's reduced four times
(25 dB) or little better. Reducing also takes away what JPEG did to them.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from runtime.atomic import replacing
from runtime.errors import UserError


@dataclass(frozen=True)
class Wallpaper:
    """A photograph in a package.

    Attributes:
        package: Ubuntu's name of the package.
        version: One that holds the file; others may hold it, too.
        path: Of the file, below the folder where packages are unpacked.
        reduction: Factor by which its sides are reduced.
        sha256: Of the file.
    """

    package: str
    version: str
    path: str
    reduction: int
    sha256: str


def listed_wallpapers() -> list[Wallpaper]:
    """Return the photographs of ``wallpapers.csv``, in its order."""
    table = (files("training") / "data" / "wallpapers.csv").read_text(encoding="utf-8")
    _, *rows = csv.reader(table.splitlines())
    return [
        Wallpaper(package, version, path, int(reduction), sha256)
        for package, version, path, reduction, sha256 in rows
    ]


def reduce_wallpapers(unpacked: Path, out: Path, listed: Sequence[Wallpaper]) -> list[Wallpaper]:
    """Write every photograph, reduced, as ``out/wallpaper_NNN.png``.

    Pictures that are there already are kept, so that the call can be repeated when it was
    interrupted or more packages are unpacked.

    Args:
        unpacked: Where the packages were unpacked.
        out: Folder of training pictures.
        listed: Which photographs; the files are numbered in this order.

    Returns:
        The photographs that ``unpacked`` lacks, or holds as another file than is listed.

    Raises:
        UserError: If it lacks all of them, or ``out`` cannot be written.
    """
    lacking = []
    for number, one in enumerate(tqdm(listed, unit="picture", disable=None)):
        destination = out / f"wallpaper_{number:03d}.png"
        if destination.exists():
            continue
        source = unpacked / one.path
        if not source.is_file() or hashlib.sha256(source.read_bytes()).hexdigest() != one.sha256:
            lacking.append(one)
            continue
        with Image.open(source) as photograph:
            width, height = (round(side / one.reduction) for side in photograph.size)
            reduced = photograph.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        with replacing(destination) as temporary:
            reduced.save(temporary, "PNG", compress_level=1)
    if len(lacking) == len(listed):
        raise UserError(
            f"{unpacked}: holds none of the {len(listed)} photographs; expected the folder where "
            "the packages that --packages names were unpacked"
        )
    return lacking
