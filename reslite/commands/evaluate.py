"""``reslite evaluate``: PSNR and SSIM of a network or an exported file on pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from benchmarks.accuracy import FolderPairs
    from training.degradations.levels import Level


@click.command("evaluate", epilog="Example: reslite evaluate carn-m --scale 4 --data set5/ --json")
@click.argument("model")
@click.option("--scale", type=int, help="Upscaling factor, if the network has several.")
@click.option(
    "--level",
    type=click.Choice(("easy", "moderate", "difficult")),
    help="Of distortions, for networks that keep the size [default: moderate].",
)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of pictures.")
@click.option(
    "--tile",
    type=click.IntRange(min=8),
    help="Restore in tiles of this many pixels [default: about 128].",
)
@click.option("--no-verify", is_flag=True, help="Do not compare the file with its manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(
    model: str,
    scale: int | None,
    level: str | None,
    data: Path,
    tile: int | None,
    no_verify: bool,
    as_json: bool,
) -> None:
    """Score MODEL, a network by name or .safetensors file, or an exported file.

    The folder holds high-resolution pictures, which are reduced as MATLAB does, or a folder HR with
    the reductions beside it in LRx<scale>. PSNR and SSIM are taken on Y after cutting a border.
    For networks that keep the size the pictures are distorted region by region, or come distorted
    in LR beside HR ('reslite make-dataset'); scores are taken on RGB.
    """
    from benchmarks.accuracy import (
        baseline,
        baseline_name,
        finite,
        network_restorer,
        psnr_name,
        score,
        session_restorer,
        ssim_name,
    )
    from runtime.errors import UserError
    from runtime.formats import BY_SUFFIX

    if Path(model).suffix.lower() in BY_SUFFIX:
        import runtime

        with runtime.open(model, verify=not no_verify) as session:
            if scale not in (None, session.scale):
                raise UserError(f"{model}: restores ×{session.scale}, not ×{scale}")
            scale = session.scale
            pairs = _pairs(data, scale, level)
            scores = score(session_restorer(session, tile), pairs, scale, progress=True)
    else:
        from training.catalogue import find_model

        if tile is not None or no_verify:
            raise UserError("--tile and --no-verify are for exported files; leave them out")
        found = find_model(model)
        scale = found.chosen_scale(scale)
        pairs = _pairs(data, scale, level)
        scores = score(network_restorer(found.at_scale(scale)), pairs, scale, progress=True)
    before = score(baseline(scale), pairs, scale)
    if as_json:
        result = {
            "psnr": finite(scores.psnr),
            "ssim": scores.ssim,
            "pictures": scores.pictures,
            baseline_name(scale): {"psnr": finite(before.psnr), "ssim": before.ssim},
            "kinds": {
                kind: {"before": finite(worse), "after": finite(better)}
                for kind, (worse, better) in scores.by_kind().items()
            },
        }
        click.echo(json.dumps(result))
        return
    click.echo(f"{'picture':<28} {psnr_name(scale):>9}  {ssim_name(scale)}")
    for row in scores.rows:
        similarity = "" if row.ssim is None else f"{row.ssim:.4f}"
        click.echo(f"{row.name:<28} {row.psnr:6.2f} dB  {similarity}")
    mean = "" if scores.ssim is None else f"{scores.ssim:.4f}"
    click.echo(f"{f'mean of {scores.pictures}':<28} {scores.psnr:6.2f} dB  {mean}")
    click.echo(f"{baseline_name(scale):<28} {before.psnr:6.2f} dB")
    for kind, (worse, better) in scores.by_kind().items():
        click.echo(f"{f'{kind} regions':<28} {better:6.2f} dB  from {worse:.2f}")


def _pairs(data: Path, scale: int, level: str | None) -> FolderPairs:
    from benchmarks.accuracy import pairs_in
    from runtime.errors import UserError

    pairs = pairs_in(data, scale, cast("Level", level or "moderate"))
    if level is not None and (scale > 1 or pairs.low is not None):
        raise UserError(
            f"--level {level}: says how pictures that come alone are distorted; {data} holds "
            "damaged ones beside them, or the network enlarges: leave it out"
        )
    return pairs
