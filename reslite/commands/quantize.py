"""``reslite quantize``: find the int8 scales of a network from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from quantize.methods import Method
from reslite.commands.network import NamedNetwork, takes_network

tune_option = click.option(
    "--tune",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="Train int8 weights and scales to give back the float network's pictures [default: 1.5 "
    "for networks of others, 0 for reslite's own].",
)


@click.command(
    "quantize", epilog="Example: reslite quantize carn-m --scale 4 --calibration photos/"
)
@takes_network
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Folder of pictures [default: RESLITE_DATA's training pictures, else scikit-image's].",
)
@click.option(
    "--method",
    type=click.Choice(get_args(Method)),
    help="How ranges are chosen [default: cautious for super-resolution, else measured].",
)
@tune_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Table to write [default: MODEL_xS_scales.json]."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing table.")
def command(
    network: NamedNetwork,
    calibration: Path | None,
    method: str | None,
    tune: float | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Find the scales of MODEL from pictures and write them as a readable table.

    MODEL is a network as in 'reslite ship'.

    The shipped networks come with scales. Pass the table to 'reslite export --scales'.
    """
    from export.sources.source import Source
    from quantize.ptq import find_scales
    from quantize.tuning import limit_for
    from runtime.atomic import replacing
    from runtime.errors import UserError
    from training.catalogue import file_stem

    found, scale = network.find()
    out = out or Path(f"{file_stem(found.name, scale)}_scales.json")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: already exists; choose another --out or pass --overwrite")
    # The table is opened first, so that an unwritable folder fails before the work.
    with replacing(out) as temporary:
        source = Source.of(found, scale)
        table = find_scales(
            source,
            calibration,
            cast("Method | None", method),
            progress=True,
            tuning=limit_for(found, tune),
        )
        table.write(temporary)
    pictures = len(table.calibration.pictures)
    click.echo(f"{out}: {len(table.activations)} activations, {table.method}, {pictures} pictures")
