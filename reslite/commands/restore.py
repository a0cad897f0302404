"""``reslite restore``: pictures in, restored pictures out."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "restore", epilog="Example: reslite restore photo.png --model dist/carn_m_x4_int8.tflite"
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "-m", required=True, help="An artifact, or a model's name with --scale.")
@click.option("--scale", type=int, help="Upscaling factor of a model given by name.")
@click.option("--precision", default="float32", show_default=True, help="Of a model given by name.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="A picture file for one picture, else a folder [default: PICTURE_x4.png beside it].",
)
@click.option("--tile", type=click.IntRange(min=8), help="Side of the tiles in pixels.")
@click.option("--ensemble", is_flag=True, help="Average over 8 orientations: better, 8× slower.")
@click.option("--runtime", "runtime_name", help="Run .onnx files with this runtime: openvino.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--overwrite", is_flag=True, help="Replace existing pictures.")
@click.option("--no-verify", is_flag=True, help="Do not compare the file with its manifest.")
def command(
    pictures: tuple[Path, ...],
    model: str,
    scale: int | None,
    precision: str,
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
    from runtime.errors import UserError
    from runtime.restoration import restore_file, restore_folder

    with open_model(model, scale, precision, not no_verify, runtime_name, threads) as session:
        jobs = [(one, _destination(one, out, session.scale, len(pictures))) for one in pictures]
        done, failures = 0, []
        for source, destination in jobs:
            try:
                if source.is_dir():
                    report = restore_folder(session, source, destination, overwrite, tile, ensemble)
                    done += len(report.restored) + len(report.skipped)
                    failures += [reason for _, reason in report.failed]
                else:
                    restore_file(session, source, destination, overwrite, tile, ensemble)
                    done += 1
                click.echo(f"{destination}")
            except UserError as error:
                failures.append(str(error))
    for failure in failures:
        click.echo(f"reslite: {failure}", err=True)
    if done + len(failures) > 1:
        click.echo(f"{done} restored, {len(failures)} failed")
    return 2 if failures else 0


def _destination(source: Path, out: Path | None, scale: int, sources: int) -> Path:
    """Return where a picture, or a folder of them, goes."""
    if out is None:
        suffix = "" if source.is_dir() else ".png"
        return source.with_name(f"{source.stem}_x{scale}{suffix}")
    if source.is_dir():
        return out if sources == 1 else out / source.name
    if out.is_dir() or sources > 1 or not out.suffix:
        return out / f"{source.stem}.png"
    return out
