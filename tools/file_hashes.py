"""SHA-256 of every file of every profile, to show that a change of the code changed no file.

Run ``python -m tools.file_hashes > before.txt`` in one checkout and ``python -m tools.file_hashes
--compare before.txt`` in another; the comparison names the files that differ and exits with 1.
Files are written, not run; a network that a profile refuses is listed with the reason.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import click

from export.artifacts import write_artifact
from export.lowered import lower_for
from export.profiles import PROFILES, Profile
from export.sources.source import Source
from export.variants import Variant
from quantize import load_scales
from runtime.errors import UserError
from runtime.formats import Precision
from training.catalogue import find_model

NETWORKS = ("carn-m", "mepsnet-s")
FIXED_SIZE = (48, 64)


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--compare", type=click.Path(exists=True, path_type=Path), help="Earlier output.")
def main(networks: tuple[str, ...], compare: Path | None) -> None:
    """Print a line per file of NETWORKS [default: carn-m mepsnet-s]: its SHA-256 and its name."""
    found = []
    for line in hashes(networks or NETWORKS):
        click.echo(line)
        found.append(line)
    if compare is not None:
        before = compare.read_text(encoding="utf-8").splitlines()
        differing = sorted(set(found) ^ set(before))
        click.echo("\n".join(["", f"{len(differing)} lines differ", *differing]), err=True)
        sys.exit(1 if differing else 0)


def hashes(networks: Sequence[str]) -> Iterator[str]:
    """Yield a line for every file of every profile of the named networks, at all their scales."""
    for name in networks:
        model = find_model(name)
        for scale in model.scales:
            source, table = Source.of(model, scale), load_scales(name, scale)
            for variant in (one for p in PROFILES.values() for one in variants(p, source)):
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        lowered = lower_for(source, variant, table)
                        made = write_artifact(source, variant, lowered, Path(folder), table)
                        yield f"{made.sha256} {made.file}"
                    except UserError as error:
                        yield f"refused {variant.file_name(name, scale)}: {error}"


def variants(profile: Profile, source: Source) -> list[Variant]:
    """Return every kind of file of a profile, including files that restore tiles."""
    made = [
        Variant(profile.format, precision, size=size, profile=profile.name)
        for size in (None, FIXED_SIZE)
        for precision in get_args(Precision)
    ]
    if profile.format == "tflite":
        made.append(Variant("tflite", "int8", float_io=True, profile=profile.name))
    paired = [one for v in made for one in (v.companion(source.graph), v) if one is not None]
    return list(dict.fromkeys(paired))


if __name__ == "__main__":
    main()
