"""``reslite restore``: pictures in, restored pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from runtime.formats import Precision


@click.command(
    "restore", epilog="Example: reslite restore photo.png --model dist/carn_m_x4_int8.tflite"
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "-m", required=True, help="An exported file, or a network's name.")
@click.option("--scale", type=int, help="Upscaling factor of a model given by name.")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="Of a model given by name [default: float32].",
)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="A picture file for one picture, else a folder [default: PICTURE_x4.png or _restored.png "
    "beside it, FOLDER_x4/ for a folder].",
)
@click.option(
    "--tile", type=click.IntRange(min=8), help="Side of the tiles in pixels [default: about 128]."
)
@click.option("--ensemble", is_flag=True, help="Average over 8 orientations: better, 8× slower.")
@click.option("--runtime", "runtime_name", help="Run .onnx files with this runtime: openvino.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: all].")
@click.option("--overwrite", is_flag=True, help="Replace existing pictures.")
@click.option("--no-verify", is_flag=True, help="Do not compare the file with its manifest.")
def command(
    pictures: tuple[Path, ...],
    model: str,
    scale: int | None,
    precision: str | None,
    out: Path | None,
    tile: int | None,
    ensemble: bool,
    runtime_name: str | None,
    threads: int | None,
    overwrite: bool,
    no_verify: bool,
) -> int:
    """Restore PICTURES: files, or folders of them. Large ones are restored in tiles."""
    from reslite.loading import open_model
    from runtime.restoration import destinations, restore_all

    with open_model(model, scale, precision, not no_verify, runtime_name, threads) as session:
        jobs = destinations(pictures, out, session.scale)
        report = restore_all(session, jobs, overwrite=overwrite, tile=tile, ensemble=ensemble)
    for failure in report.failures:
        click.echo(f"reslite: {failure}", err=True)
    for path in report.finished:
        click.echo(f"{path}")
    if len(jobs) > 1:
        counts = (len(report.finished), len(report.skipped), len(report.failures))
        click.echo("{} restored, {} there already, {} failed".format(*counts))
    return 2 if report.failures else 0
