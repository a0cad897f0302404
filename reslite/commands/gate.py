"""``reslite gate``: compare every artifact with the committed baselines."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.errors import UserError

if TYPE_CHECKING:
    from benchmarks.gate import Deviation
    from benchmarks.snapshots import Snapshot


@click.command("gate", epilog="Example: reslite gate --bundle dist")
@click.option("--model", help="Check this network only [default: all that have a baseline].")
@click.option("--scale", type=int, help="Upscaling factor, if the network has several.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Check this bundle as it is [default: a bundle exported for the check].",
)
@click.option("--update", is_flag=True, help="Accept the measured figures as the new baseline.")
def command(model: str | None, scale: int | None, bundle: Path | None, update: bool) -> int:
    """Compare accuracy, size, MultAdds and operators of exported files with their baselines.

    The pictures ship with scikit-image. A figure that is better than the baseline fails as well:
    the baseline changes only by --update.
    """
    from benchmarks.gate import compare
    from benchmarks.report.gate_summary import deviation_table
    from benchmarks.snapshots import baseline_path, read_snapshot

    code = 0
    for name, factor in _chosen(model, scale, bundle):
        (found, deviations), path = _measured(name, factor, bundle), baseline_path(name, factor)
        if update and not deviations:
            found.write(path)
            click.echo(f"baseline updated: {path}")
            continue
        if deviations := [*deviations, *compare(found, read_snapshot(path))]:
            chosen = f" --bundle {bundle}" if bundle else f" --model {name} --scale {factor}"
            click.echo(deviation_table(deviations, chosen))
            code = 1
        else:
            count = len(found.artifacts)
            click.echo(f"gate passed: {count} artifacts of {name} ×{factor} are as expected")
    return code


def _chosen(model: str | None, scale: int | None, bundle: Path | None) -> list[tuple[str, int]]:
    """Return the networks to check: the named or the bundle's network, else all with baselines."""
    from benchmarks.snapshots import BASELINES, manifest_of, read_snapshot
    from training.catalogue import find_model

    if bundle is not None:
        manifest = manifest_of(bundle)
        if model not in (None, manifest.model) or scale not in (None, manifest.scale):
            raise UserError(
                f"{bundle}: holds {manifest.model} ×{manifest.scale}; leave --model and --scale out"
            )
        return [(manifest.model, manifest.scale)]
    if model is not None:
        return [(model, find_model(model).chosen_scale(scale))]
    if scale is not None:
        raise click.UsageError("--scale goes with --model; without both, all baselines are checked")
    baselines = [read_snapshot(path) for path in sorted(BASELINES.glob("*.json"))]
    if not baselines:
        raise UserError(f"{BASELINES}: holds no baseline; make one with --model NAME --update")
    return [(one.model, one.scale) for one in baselines]


def _measured(model: str, scale: int, bundle: Path | None) -> tuple[Snapshot, list[Deviation]]:
    """Measure a bundle, or export and measure one; return figures, and files that fail a check."""
    from benchmarks.gate import damaged, unproven
    from benchmarks.snapshots import gate_pictures, snapshot
    from export.bundle import bundle_of
    from export.parity import ParityError, restore_with
    from export.sources import Source
    from export.variants import DEFAULT_VARIANTS
    from quantize import load_scales
    from quantize.simulator import int8_reference
    from training.catalogue import find_model, list_models

    if model not in {one.name for one in list_models()}:
        raise UserError(
            f"{model}: has no baseline; the gate checks networks that ship with reslite"
        )
    source = Source.of(find_model(model), scale)
    pairs = gate_pictures(source.model.task, scale)
    measured = partial(snapshot, source=restore_with(source.module), pairs=pairs)
    if bundle is not None:
        return measured(bundle), damaged(bundle)
    with tempfile.TemporaryDirectory() as folder:
        table = load_scales(model, scale)
        failed = []
        for variant in DEFAULT_VARIANTS:
            try:
                bundle_of(source, [variant], Path(folder), table, int8_reference)
            except ParityError as error:
                failed.append(unproven(error))
        return measured(Path(folder)), failed
