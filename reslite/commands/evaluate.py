"""``reslite evaluate``: PSNR and SSIM of a network or an exported file on pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("evaluate", epilog="Example: reslite evaluate carn-m --scale 4 --data set5/ --json")
@click.argument("model")
@click.option("--scale", type=int, help="Upscaling factor; needed with a model's name.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of pictures.")
@click.option("--tile", type=click.IntRange(min=8), help="Restore in tiles of this many pixels.")
@click.option("--no-verify", is_flag=True, help="Do not compare the file with its manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(
    model: str, scale: int | None, data: Path, tile: int | None, no_verify: bool, as_json: bool
) -> None:
    """Score MODEL, a network by name or .safetensors file, or an exported file.

    The folder holds high-resolution pictures, which are reduced as MATLAB does, or a folder HR with
    the reductions beside it in LRx<scale>. PSNR and SSIM are taken on Y after cutting a border.
    """
    from benchmarks.accuracy import network_restorer, pairs_in, score, session_restorer
    from reslite.loading import ARTIFACT_SUFFIXES
    from runtime.errors import UserError

    if Path(model).suffix in ARTIFACT_SUFFIXES:
        import runtime

        with runtime.open(model, verify=not no_verify) as session:
            if scale not in (None, session.scale):
                raise UserError(f"{model}: restores ×{session.scale}, not ×{scale}")
            pairs = pairs_in(data, session.scale)
            scores = score(session_restorer(session, tile), pairs, session.scale, progress=True)
    elif scale is None:
        raise UserError(f"{model}: a network needs --scale ('reslite models' lists them)")
    else:
        from training.catalogue import find_model

        network = find_model(model).at_scale(scale)
        scores = score(network_restorer(network), pairs_in(data, scale), scale, progress=True)
    if as_json:
        result = {
            "psnr_y": scores.psnr_y,
            "ssim_y": scores.ssim_y,
            "pictures": scores.pictures,
        }
        click.echo(json.dumps(result))
        return
    for row in scores.rows:
        similarity = "" if row.ssim_y is None else f"{row.ssim_y:.4f}"
        click.echo(f"{row.name:<28} {row.psnr_y:6.2f} dB  {similarity}")
    mean = "" if scores.ssim_y is None else f"{scores.ssim_y:.4f}"
    click.echo(f"{f'mean of {scores.pictures}':<28} {scores.psnr_y:6.2f} dB  {mean}")
