"""Training pictures from Ubuntu's wallpaper packages: which photographs, and how far reduced.

``wallpapers.csv`` names the photographs that were chosen from 161 packages: sharp ones, each once,
reduced until bicubic interpolation restores them (×4) about as badly as DIV2K's reduced four times
(25 dB). Reducing also takes away what JPEG did to them.
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
        version: Version that was read; other versions hold the same file, if at all.
        path: Of the file, below the folder where packages are unpacked.
        reduction: Factor by which its sides are reduced.
        sha256: Of the file.
    """

    package: str
    version: str
    path: str
    reduction: int
    sha256: str

    @property
    def requirement(self) -> str:
        """The package as apt-get takes it."""
        return f"{self.package}={self.version}"


def listed_wallpapers() -> list[Wallpaper]:
    """Return the photographs of ``wallpapers.csv``, in its order."""
    table = (files("training") / "wallpapers.csv").read_text(encoding="utf-8")
    _, *rows = csv.reader(table.splitlines())
    return [
        Wallpaper(package, version, path, int(reduction), sha256)
        for package, version, path, reduction, sha256 in rows
    ]


def reduce_wallpapers(unpacked: Path, out: Path, listed: Sequence[Wallpaper]) -> int:
    """Write every photograph, reduced, as ``out/wallpaper_NNN.png``.

    Photographs that are there already are kept, so that an interrupted call can be repeated.

    Args:
        unpacked: Where the packages were unpacked.
        out: Folder of training pictures.
        listed: Which photographs; the files are numbered in this order.

    Returns:
        How many were there already.

    Raises:
        UserError: If a photograph is missing or is another one than is listed, before any is
            written, or ``out`` cannot be written.
    """
    missing = {one.requirement for one in listed if not (unpacked / one.path).is_file()}
    if missing:
        raise UserError(
            f"{unpacked}: lacks photographs of {len(missing)} packages; fetch and unpack "
            + " ".join(sorted(missing))
        )
    kept = 0
    for number, one in enumerate(tqdm(listed, unit="picture", disable=None)):
        destination = out / f"wallpaper_{number:03d}.png"
        if destination.exists():
            kept += 1
            continue
        source = unpacked / one.path
        if hashlib.sha256(source.read_bytes()).hexdigest() != one.sha256:
            raise UserError(
                f"{source}: is not the file of {one.package} {one.version}; "
                "fetch and unpack that version"
            )
        with Image.open(source) as photograph:
            width, height = (round(side / one.reduction) for side in photograph.size)
            reduced = photograph.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        with replacing(destination) as temporary:
            reduced.save(temporary, "PNG", compress_level=1)
    return kept
