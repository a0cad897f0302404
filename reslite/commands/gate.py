"""``reslite gate``: is every artifact still what the committed baselines say?"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from benchmarks.gate import Deviation, Snapshot


@click.command("gate", epilog="Example: reslite gate --bundle dist")
@click.option("--model", help="Check this network only [default: all that have a baseline].")
@click.option("--scale", type=int, help="Upscaling factor, if the network has several.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Check this bundle; what it lacks is exported into it [default: a new one].",
)
@click.option("--update", is_flag=True, help="Accept what is found as the new baseline.")
def command(model: str | None, scale: int | None, bundle: Path | None, update: bool) -> int:
    """Export networks and compare accuracy, size, MultAdds and operators with their baselines.

    The pictures ship with scikit-image. A figure that is better than the baseline fails as well:
    the baseline moves on purpose only, by --update.
    """
    from benchmarks.gate import baseline_path, compare, deviation_table, read_snapshot

    code = 0
    for name, factor in _chosen(model, scale, bundle):
        (found, deviations), path = _measured(name, factor, bundle), baseline_path(name, factor)
        if update and not deviations:
            found.write(path)
            click.echo(f"baseline updated: {path}")
            continue
        if deviations := [*deviations, *compare(found, read_snapshot(path))]:
            click.echo(deviation_table(deviations))
            code = 1
        else:
            count = len(found.artifacts)
            click.echo(f"gate passed: {count} artifacts of {name} ×{factor} are as expected")
    return code


def _chosen(model: str | None, scale: int | None, bundle: Path | None) -> list[tuple[str, int]]:
    """Return the networks to check: the one named, that of the bundle, or all with a baseline."""
    from benchmarks.gate import BASELINES, read_snapshot
    from runtime.manifest import read_manifest
    from training.catalogue import find_model

    if model is not None:
        return [(model, find_model(model).chosen_scale(scale))]
    if bundle is not None and (manifest := read_manifest(bundle)) is not None:
        return [(manifest.model, manifest.scale)]
    if bundle is not None:
        raise click.UsageError(f"{bundle}: holds no bundle yet; name the network with --model")
    baselines = [read_snapshot(path) for path in sorted(BASELINES.glob("*.json"))]
    return [(one.model, one.scale) for one in baselines]


def _measured(model: str, scale: int, bundle: Path | None) -> tuple[Snapshot, list[Deviation]]:
    """Export and measure a network; files that fail their proof are measured and listed."""
    from benchmarks.gate import gate_pictures, snapshot, unproven
    from export.bundle import DEFAULT_VARIANTS, Source, bundle_of
    from export.parity import ParityError, restore_with
    from quantize import load_scales
    from quantize.simulator import simulated
    from training.catalogue import find_model

    source = Source.of(find_model(model), scale)
    with nullcontext(bundle) if bundle else tempfile.TemporaryDirectory() as folder:
        table = load_scales(model, scale)
        failed = []
        for variant in DEFAULT_VARIANTS:
            try:
                bundle_of(source, [variant], Path(folder), table, simulated)
            except ParityError as error:
                failed.append(unproven(error))
        found = snapshot(Path(folder), restore_with(source.module), gate_pictures(scale))
        return found, failed
