"""``reslite make-dataset``: distorted pictures on disk, with what befell them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from training.shdd import Level


@click.command(
    "make-dataset",
    epilog="Example: reslite make-dataset shdd --level moderate --in photos/ --out shdd/",
)
@click.argument("kind", type=click.Choice(("shdd",)))
@click.option(
    "--level",
    type=click.Choice(("easy", "moderate", "difficult")),
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
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def command(
    kind: str, level: str, source: Path, out: Path, versions: int, seed: int, overwrite: bool
) -> None:
    """Divide pictures and distort each region in another way (SHDD).

    OUT gets HR with the pictures, LR with the distorted versions of each, and beside every version
    a .json with its rectangles, distortions and strengths. Equal arguments give equal files; what
    is there is kept, so that an interrupted call can be repeated.
    """
    from training.shdd_dataset import write_dataset

    written = write_dataset(source, out, cast("Level", level), versions, seed, overwrite)
    click.echo(f"{out}: {written.pictures} pictures, {written.versions} distorted versions")
    if written.kept:
        click.echo(f"{written.kept} were there already; pass --overwrite to replace them")
