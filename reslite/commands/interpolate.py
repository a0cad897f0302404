"""``reslite interpolate``: a network between two others."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "interpolate",
    epilog="Example: reslite interpolate carn-m runs/gan/weights.safetensors --alpha 0.8 "
    "--out between.safetensors",
)
@click.argument("first")
@click.argument("second")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    required=True,
    help="Share of SECOND: 0 gives FIRST back, 1 SECOND.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Weights file to write, a .safetensors; the network gets its name.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def command(first: str, second: str, alpha: float, out: Path, overwrite: bool) -> None:
    """Write the network between FIRST and SECOND, whose parameters are theirs, weighted.

    Both are networks that ship with reslite or weights that it trained, of one network, SECOND
    trained from FIRST: for example by discriminators, from weights that were taught by pixels.
    """
    from runtime.errors import UserError
    from training.catalogue import find_model
    from training.interpolation import save_interpolated

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: weights files end in .safetensors")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists; choose another --out or replace it with --overwrite")
    save_interpolated(find_model(first), find_model(second), alpha, out)
    click.echo(out)
