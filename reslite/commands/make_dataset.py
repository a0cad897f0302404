"""``reslite make-dataset``: pictures on disk, distorted or reduced for training."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from training.degradations.levels import Level


@click.group(
    "make-dataset",
    epilog="Example: reslite make-dataset shdd --level moderate --in photos/ --out shdd/",
)
def command() -> None:
    """Make a folder of pictures to train on or to evaluate with."""


@command.command(
    "shdd", epilog="Example: reslite make-dataset shdd --level moderate --in photos/ --out shdd/"
)
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    required=True,
    help="How often a picture is divided: 2, 3 or 4 times.",
)
@click.option("--in", "source", type=click.Path(path_type=Path), required=True, help="Pictures.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option(
    "--versions",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="Distorted versions of each picture.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def shdd(level: str, source: Path, out: Path, versions: int, seed: int, overwrite: bool) -> int:
    """Divide pictures and distort each region in another way (SHDD).

    OUT gets HR with the pictures, LR with the distorted versions of each, and beside every version
    a .json with its rectangles, distortions and strengths. Equal arguments give equal files;
    existing files are kept, so that an interrupted call can be repeated. A picture that cannot be
    read is named at the end (exit code 2), and the others are finished.
    """
    from training.data.shdd_dataset import write_dataset

    written = write_dataset(source, out, cast(Level, level), versions, seed, overwrite)
    click.echo(f"{out}: {written.pictures} pictures, {written.versions} distorted versions")
    if written.kept:
        click.echo(f"{written.kept} already existed; pass --overwrite to replace them")
    for line in written.failures:
        click.echo(f"reslite: {line}", err=True)
    if not written.failures:
        return 0
    count = len(written.failures)
    click.echo(f"{count} failed: mend or remove them and run the same command again", err=True)
    return 2


@command.command(
    "wallpapers",
    epilog="Example: reslite make-dataset wallpapers --in unpacked/ --out pictures/train",
)
@click.option("--packages", is_flag=True, help="Name the packages, one in a line.")
@click.option(
    "--in", "source", type=click.Path(path_type=Path), help="Where the packages were unpacked."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make.")
def wallpapers(packages: bool, source: Path | None, out: Path | None) -> None:
    """Reduce photographs from Ubuntu's wallpaper packages to pictures to train on.

    Existing files are kept, so that the call can be repeated when it was interrupted or more
    packages are unpacked.
    """
    from training.data.wallpapers import listed_wallpapers, reduce_wallpapers

    listed = listed_wallpapers()
    if packages:
        click.echo("\n".join(sorted({one.package for one in listed})))
        return
    if source is None or out is None:
        raise click.UsageError("name both folders, --in and --out, or ask for --packages")
    lacking = reduce_wallpapers(source, out, listed)
    click.echo(f"{out}: {len(listed) - len(lacking)} of {len(listed)} photographs")
    if lacking:
        versions = sorted({f"{one.package}={one.version}" for one in lacking})
        click.echo(f"the others are in other packages or versions: {' '.join(versions)}")
