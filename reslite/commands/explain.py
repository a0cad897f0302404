"""``reslite explain``: where the experts of a network are active in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from training.degradations.levels import Level


@click.command("explain", epilog="Example: reslite explain mepsnet-s photo.png -o experts.png")
@click.argument("model")
@click.argument("picture", type=click.Path(path_type=Path))
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="The figure [default: PICTURE_experts.png beside it].",
)
@click.option(
    "--distort",
    type=click.Choice(get_args(Level)),
    help="Distort the picture region by region first.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing figure.")
def command(
    model: str, picture: Path, out: Path | None, distort: str | None, overwrite: bool
) -> None:
    """Draw PICTURE, its restoration by MODEL, and where each expert is active."""
    from benchmarks.pairs import Pair
    from benchmarks.report.experts import draw, explain
    from runtime.errors import UserError
    from training.catalogue import find_model
    from training.data.pictures import read_rgb
    from training.tasks import SHDD

    if picture.is_dir():
        raise UserError(f"{picture}: is a folder, expected a picture file")
    out = out or picture.with_name(f"{picture.stem}_experts.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"{out}: the figure is a PNG; name it *.png")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: already exists; pass --overwrite to replace")
    found, pixels = find_model(model), read_rgb(picture)
    if distort is not None:
        pixels = Pair.degraded(picture.name, pixels, SHDD[cast(Level, distort)], 1).low
    draw(explain(found.network(), found.name, pixels), out)
    click.echo(f"{out}")
