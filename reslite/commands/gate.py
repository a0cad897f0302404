"""``reslite gate``: is every artifact still what the committed baseline says?"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import click


@click.command("gate", epilog="Example: reslite gate --bundle dist")
@click.option("--model", default="carn-m", show_default=True)
@click.option("--scale", default=4, show_default=True)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Check this bundle; what it lacks is exported into it [default: a new one].",
)
@click.option("--update", is_flag=True, help="Accept what is found as the new baseline.")
def command(model: str, scale: int, bundle: Path | None, update: bool) -> int:
    """Export MODEL and compare accuracy, size, MultAdds and operators with the baseline.

    The pictures ship with scikit-image. A figure that is better than the baseline fails as well:
    the baseline moves on purpose only, by --update.
    """
    from benchmarks.gate import (
        BASELINE,
        compare,
        deviation_table,
        gate_pictures,
        read_snapshot,
        snapshot,
    )
    from export.bundle import DEFAULT_VARIANTS, Source, bundle_of
    from export.parity import restore_with
    from quantize import load_scales
    from quantize.simulator import simulated
    from training.catalogue import find_model

    source = Source.of(find_model(model), scale)
    with nullcontext(bundle) if bundle else tempfile.TemporaryDirectory() as folder:
        table = load_scales(model, scale)
        bundle_of(source, DEFAULT_VARIANTS, Path(folder), table, simulated)
        found = snapshot(Path(folder), restore_with(source.module), gate_pictures(scale))
    if update:
        found.write(BASELINE)
        click.echo(f"baseline updated: {BASELINE}")
        return 0
    deviations = compare(found, read_snapshot(BASELINE))
    if deviations:
        click.echo(deviation_table(deviations))
        return 1
    click.echo(f"gate passed: {len(found.artifacts)} artifacts of {model} ×{scale} are as expected")
    return 0
