"""``reslite evaluate``: PSNR and SSIM of a network or an exported file on pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import click

from training.degradations.levels import Level

if TYPE_CHECKING:
    from benchmarks.pairs import FolderPairs
    from training.tasks import Task


@click.command("evaluate", epilog="Example: reslite evaluate carn-m --scale 4 --data set5/ --json")
@click.argument("model")
@click.option("--scale", type=int, help="Upscaling factor, if the network has several.")
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    help="Level of distortion, for networks trained on SHDD [default: the training's].",
)
@click.option(
    "--task",
    "task_name",
    help="Degradation to undo, as named in recipes [default: the network's training's].",
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
    task_name: str | None,
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

    The task of an exported file is named by the manifest beside it, or by --task. Without both, a
    file that enlarges is taken for bicubic super-resolution, and a file that keeps the size for
    restoration of distorted regions.
    """
    from benchmarks.accuracy import baseline, finite, network_restorer, score, session_restorer
    from runtime.errors import UserError
    from runtime.formats import BY_SUFFIX

    if Path(model).suffix.lower() in BY_SUFFIX:
        import runtime
        from runtime.manifest import read_manifest
        from training.tasks import task_of_manifest

        with runtime.open(model, verify=not no_verify) as session:
            if scale not in (None, session.scale):
                raise UserError(f"{model}: restores ×{session.scale}, not ×{scale}")
            scale = session.scale
            trained_for = task_of_manifest(read_manifest(Path(model).parent), scale)
            task = _task(trained_for, task_name, level)
            pairs = _pairs(data, task, scale, level)
            scores = score(session_restorer(session, tile), pairs, progress=True)
    else:
        from training.catalogue import find_model

        if tile is not None or no_verify:
            raise UserError("--tile and --no-verify are for exported files; leave them out")
        found = find_model(model)
        scale = found.chosen_scale(scale)
        task = _task(found.task, task_name, level)
        pairs = _pairs(data, task, scale, level)
        scores = score(network_restorer(found.at_scale(scale)), pairs, progress=True)
    before = score(baseline(task, scale), pairs)
    if as_json:
        result = {
            "psnr": finite(scores.psnr),
            "ssim": scores.ssim,
            "pictures": scores.pictures,
            task.baseline_name: {"psnr": finite(before.psnr), "ssim": before.ssim},
            "kinds": {
                kind: {"before": finite(worse), "after": finite(better)}
                for kind, (worse, better) in scores.by_kind().items()
            },
        }
        click.echo(json.dumps(result))
        return
    click.echo(f"{'picture':<28} {task.scoring.psnr_title:>9}  {task.scoring.ssim_title}")
    for row in scores.rows:
        similarity = "" if row.ssim is None else f"{row.ssim:.4f}"
        click.echo(f"{row.name:<28} {row.psnr:6.2f} dB  {similarity}")
    mean = "" if scores.ssim is None else f"{scores.ssim:.4f}"
    click.echo(f"{f'mean of {scores.pictures}':<28} {scores.psnr:6.2f} dB  {mean}")
    click.echo(f"{task.baseline_name:<28} {before.psnr:6.2f} dB")
    for kind, (worse, better) in scores.by_kind().items():
        click.echo(f"{f'{kind} regions':<28} {better:6.2f} dB  from {worse:.2f}")


def _task(trained_for: Task, name: str | None, level: str | None) -> Task:
    from runtime.errors import UserError
    from training.tasks import SHDD, task_named

    task = task_named(name) if name is not None else trained_for
    if level is None:
        return task
    if task not in SHDD.values():
        raise UserError(f"--level {level}: pictures of '{task.name}' have no levels: leave it out")
    return SHDD[cast(Level, level)]


def _pairs(data: Path, task: Task, scale: int, level: str | None) -> FolderPairs:
    from benchmarks.pairs import pairs_in
    from runtime.errors import UserError

    pairs = pairs_in(data, task, scale)
    if level is not None and pairs.come_degraded:
        raise UserError(
            f"--level {level}: applies to pictures without distorted versions, but {data} holds "
            "distorted versions: leave it out"
        )
    return pairs
