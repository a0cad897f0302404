"""``reslite gate``: compare every artifact with its baseline."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import click

from export.sources.options import Options
from reslite.commands.network import network_options
from runtime.errors import UserError

_PATH = click.Path(path_type=Path)


@click.command("gate", epilog="Example: reslite gate --bundle dist --baseline baseline.json")
@click.option("--model", help="Check this network only [default: all that have a baseline].")
@click.option("--scale", type=int, help="Upscaling factor, if the network has several.")
@click.option(
    "--bundle",
    type=_PATH,
    help="Check this bundle as it is [default: a bundle exported for the check].",
)
@click.option(
    "--baseline", type=_PATH, help="File of the bundle's figures [default: reslite's own]."
)
@click.option(
    "--data",
    type=_PATH,
    help="Folder of pictures to measure on [default: crops of scikit-image's pictures].",
)
@click.option(
    "--network",
    metavar="NAME",
    help="Network from Python that the bundle was made from, for example my_net.py:MyNet.",
)
@network_options(
    "Weights of the bundle: compare its files with their network [default: with its float32 file, "
    "if the weights do not ship with reslite]."
)
@click.option("--update", is_flag=True, help="Accept the measured figures as the new baseline.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--junit", type=_PATH, help="Write the outcome to this file, as JUnit XML.")
@click.option("--markdown", type=_PATH, help="Write the outcome to this file, as Markdown.")
def command(
    model: str | None,
    scale: int | None,
    bundle: Path | None,
    baseline: Path | None,
    data: Path | None,
    network: str | None,
    options: Options,
    update: bool,
    as_json: bool,
    junit: Path | None,
    markdown: Path | None,
) -> int:
    """Compare accuracy, size, MultAdds and operators of exported files with their baselines.

    A figure that is better than the baseline fails as well: the baseline changes only by --update.
    With --baseline and --update, the figures of any bundle become a baseline.
    """
    from benchmarks.report import gate_summary
    from reslite.gating import judge_bundle, judge_shipped
    from runtime.atomic import replacing

    _check_combination(bundle, baseline, data, network, options)
    if network is None and options.weights is not None:
        network, options = str(options.weights), dataclasses.replace(options, weights=None)
    if bundle is not None:
        _check_model(bundle, model, scale)
        judges = [partial(judge_bundle, bundle, baseline, data, network, options, update)]
    else:
        judges = [partial(judge_shipped, *one, update) for one in _chosen(model, scale)]
    verdicts = []
    for judge in judges:
        verdicts.append(judge())
        if not as_json:
            click.echo(gate_summary.as_text(verdicts[-1]))
    if as_json:
        click.echo(json.dumps(gate_summary.as_json(verdicts), indent=2, ensure_ascii=False))
    texts = ((junit, gate_summary.as_junit), (markdown, gate_summary.as_markdown))
    for path, text_of in texts:
        if path is not None:
            with replacing(path) as temporary:
                temporary.write_text(text_of(verdicts), encoding="utf-8")
    return 1 if any(one.deviations for one in verdicts) else 0


def _check_combination(
    bundle: Path | None,
    baseline: Path | None,
    data: Path | None,
    network: str | None,
    options: Options,
) -> None:
    """Refuse options that would say nothing."""
    if bundle is None and baseline is not None:
        raise click.UsageError("--baseline is the baseline of a bundle: name it with --bundle")
    if options.given and network is None and options.weights is None:
        raise click.UsageError(
            f"{' and '.join(options.given)}: say of which --network or --weights"
        )
    if baseline is None and (data or network or options.given):
        raise click.UsageError(
            "--data and --weights go with --baseline, and so does --network: reslite's own "
            "baselines were measured on crops of scikit-image's pictures, with the weights that "
            "ship with it"
        )


def _check_model(bundle: Path, model: str | None, scale: int | None) -> None:
    from benchmarks.snapshots import manifest_of

    manifest = manifest_of(bundle)
    if model not in (None, manifest.model) or scale not in (None, manifest.scale):
        raise UserError(
            f"{bundle}: holds {manifest.model} ×{manifest.scale}; leave --model and --scale out"
        )


def _chosen(model: str | None, scale: int | None) -> list[tuple[str, int]]:
    """Return the networks to check: the named one, else all with baselines."""
    from benchmarks.snapshots import BASELINES, baseline_path
    from training.catalogue import find_model, list_models

    if model is not None:
        return [(model, find_model(model).chosen_scale(scale))]
    if scale is not None:
        raise click.UsageError("--scale goes with --model; without both, all baselines are checked")
    # By their names, for a baseline may be of a version that only --update can replace.
    networks = [(one.name, scale) for one in list_models() for scale in one.scales]
    gated = [one for one in networks if baseline_path(*one).exists()]
    if not gated:
        raise UserError(f"{BASELINES}: holds no baseline; make one with --model NAME --update")
    return gated
