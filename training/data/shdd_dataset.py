"""SHDD on disk: pictures, their distorted versions, and the distortion of each region."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from runtime.atomic import replacing
from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training.data.pictures import Picture, read_rgb
from training.degradations.degradation import version_random
from training.degradations.levels import Level
from training.degradations.shdd import Explanation, distort, read_explanation


@dataclass(frozen=True)
class Written:
    """How much a data set holds.

    Attributes:
        pictures: Originals.
        versions: Distorted versions of all pictures together.
        kept: Versions that already existed.
        failures: A line for each picture that cannot be read and of which nothing was written.
    """

    pictures: int
    versions: int
    kept: int
    failures: tuple[str, ...] = ()


def write_dataset(
    source: Path, out: Path, level: Level, versions: int, seed: int, overwrite: bool = False
) -> Written:
    """Distort every picture of a folder ``versions`` times.

    A picture that cannot be read does not stop the others. Finished files are kept by later calls,
    so that calling again completes the set when the picture is mended.

    Args:
        source: Folder of pictures.
        out: Gets ``HR/<name>.png``, ``LR/<name>_<version>.png`` and ``LR/<name>_<version>.json``.
        level: How often each picture is chopped.
        versions: Distorted versions of each picture.
        seed: Equal seeds give equal versions of a picture, whatever else the folder holds.
        overwrite: Make existing files again.

    Raises:
        UserError: If there are no pictures, two pictures have one name, ``out`` cannot be written,
            or ``out`` holds versions of another level or seed.
    """
    paths = picture_paths(source)
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{path}: bears the name of {other.name}; rename one of them")
    names_of = {stem: [f"{stem}_{one:02d}" for one in range(versions)] for stem in by_stem}
    for stem, names in names_of.items():
        if taken := next((by_stem[name] for name in names if name in by_stem), None):
            raise UserError(
                f"{taken}: bears the name of a version of {by_stem[stem].name}; rename one of them"
            )
    kept, failures = 0, []
    for stem, path in tqdm(by_stem.items(), unit="picture", disable=None):
        names, kept_as = names_of[stem], out / "HR" / f"{stem}.png"
        try:
            picture = read_rgb(path)
        except UserError as error:
            failures.append(str(error))
            continue
        pending = [
            (version, name)
            for version, name in enumerate(names)
            if overwrite or not _is_there(out / "LR" / f"{name}.json", level, seed)
        ]
        kept += versions - len(pending)
        if overwrite or not kept_as.exists():
            _save(kept_as, picture)
        elif not np.array_equal(read_rgb(kept_as), picture):
            raise UserError(
                f"{kept_as}: is another picture than {path}; choose another --out or pass "
                "--overwrite"
            )
        for version, name in pending:
            found = distort(picture, level, version_random(seed, stem, version))
            _save(out / "LR" / f"{name}.png", found.pixels)
            # Written last: a version with an explanation is complete.
            explanation = Explanation(path.name, level, seed, found.regions)
            explanation.write(out / "LR" / f"{name}.json")
    finished = len(paths) - len(failures)
    return Written(finished, finished * versions, kept, tuple(failures))


def _is_there(explanation: Path, level: Level, seed: int) -> bool:
    """Tell whether a version is finished.

    Raises:
        UserError: If the version was made with another level or seed.
    """
    if not (explanation.exists() and explanation.with_suffix(".png").exists()):
        return False
    found = read_explanation(explanation)
    if (found.level, found.seed) != (level, seed):
        raise UserError(
            f"{explanation}: is of level {found.level} and seed {found.seed}, not {level} and "
            f"{seed}; choose another --out or pass --overwrite"
        )
    return True


def _save(path: Path, picture: Picture) -> None:
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")
