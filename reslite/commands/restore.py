"""``reslite restore``: pictures in, restored pictures out."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import click

from runtime.formats import Precision

_PIPE = "-"


@click.command(
    "restore", epilog="Example: reslite restore photo.png --model dist/carn_m_x4_int8.tflite"
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "-m", required=True, help="An exported file, or a network's name.")
@click.option("--scale", type=int, help="Upscaling factor of a model given by name.")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="Precision of a model given by name [default: float32].",
)
@click.option(
    "--out",
    "-o",
    help="A picture file for one picture, else a folder; a name that ends in / names a folder, - "
    "the standard output (PNG) [default: PICTURE_x4.png or _restored.png beside it, FOLDER_x4/ "
    "for a folder].",
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
    out: str | None,
    tile: int | None,
    ensemble: bool,
    runtime_name: str | None,
    threads: int | None,
    overwrite: bool,
    no_verify: bool,
) -> int:
    """Restore PICTURES: files, or folders of them. Large ones are restored in tiles.

    A picture called - is read from the standard input.
    """
    from reslite.loading import open_model
    from runtime.restoration import destinations, restore_all

    to_folder = out is not None and out.endswith(("/", os.sep))
    with (
        _pipes(pictures, out) as (sources, destination),
        open_model(model, scale, precision, not no_verify, runtime_name, threads) as session,
    ):
        jobs = destinations(sources, destination, session.scale, into_folder=to_folder)
        report = restore_all(session, jobs, overwrite=overwrite, tile=tile, ensemble=ensemble)
    for line in (*report.notes, *report.failures):
        click.echo(f"reslite: {line}", err=True)
    if out != _PIPE:
        for path in report.finished:
            click.echo(f"{path}")
    if len(jobs) > 1:
        counts = (len(report.finished), len(report.skipped), len(report.failures))
        click.echo("{} restored, {} already exist, {} failed".format(*counts))
    return 2 if report.failures else 0


@contextmanager
def _pipes(
    pictures: tuple[Path, ...], out: str | None
) -> Iterator[tuple[tuple[Path, ...], Path | None]]:
    """Replace the standard input and output by temporary files.

    Yields:
        The pictures and the destination, as files and folders.
    """
    from_pipe, to_pipe = Path(_PIPE) in pictures, out == _PIPE
    destination = None if out is None else Path(out)
    if not from_pipe and not to_pipe:
        yield pictures, destination
        return
    if len(pictures) > 1:
        raise click.UsageError("- is a single picture: name no other pictures with it")
    if to_pipe and sys.stdout.isatty():
        raise click.UsageError("-o - writes a PNG to the standard output: redirect it to a file")
    if from_pipe and out is None:
        raise click.UsageError("a picture from the standard input needs --out: a file, or -")
    with tempfile.TemporaryDirectory() as folder:
        if from_pipe:
            pictures = (Path(folder) / "standard input",)
            pictures[0].write_bytes(sys.stdin.buffer.read())
        if to_pipe:
            destination = Path(folder) / "restored.png"
        yield pictures, destination
        if to_pipe and destination is not None and destination.exists():
            sys.stdout.buffer.write(destination.read_bytes())
            sys.stdout.buffer.flush()
