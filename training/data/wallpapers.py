"""Training pictures from Ubuntu's wallpaper packages: photographs and their reduction factors.

``wallpapers.csv`` lists sharp photographs of 161 packages, each once. Their reduction factors are
chosen so that ×4 bicubic interpolation scores about 25 dB, as on DIV2K reduced four times; reducing
also removes JPEG artifacts.
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
        version: A version of the package that holds the file; other versions may hold it, too.
        path: Path of the file, below the folder where packages are unpacked.
        reduction: Factor by which the picture's sides are reduced.
        sha256: SHA-256 of the file.
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

    Pictures that already exist are kept, so that the call can be repeated when it was interrupted
    or more packages are unpacked.

    Args:
        unpacked: The folder where the packages were unpacked.
        out: Folder of training pictures.
        listed: The photographs; files are numbered in this order.

    Returns:
        The photographs that are missing in ``unpacked`` or whose SHA-256 differs.

    Raises:
        UserError: If all photographs are missing, or ``out`` cannot be written.
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
