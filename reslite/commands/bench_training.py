"""``reslite bench-training``: optimizer steps per second of a recipe."""

from __future__ import annotations

import dataclasses
import json

import click


@click.command("bench-training", epilog="Example: reslite bench-training carn-m --device cuda")
@click.argument("recipe")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: torch's].")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(recipe: str, device: str, threads: int | None, as_json: bool) -> None:
    """Time the steps of RECIPE, and of variations of it, in interleaved rounds.

    The batches come from RESLITE_DATA's pictures. Nothing else should run meanwhile.
    """
    import torch

    from benchmarks.report.tables import text_table
    from benchmarks.training_speed import training_speed
    from runtime.errors import UserError
    from training.data.pictures import data_folder
    from training.recipe_reading import load_recipe
    from training.run import require_device

    require_device(device)
    data = data_folder()
    if data is None:
        raise UserError("training speed is measured on real pictures: set RESLITE_DATA")
    if threads:
        torch.set_num_threads(threads)
    rows = training_speed(load_recipe(recipe), data, device=device)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    cells = [[row.name, f"{row.steps_per_second:.2f}", f"{row.ratio:.2f}×"] for row in rows]
    click.echo(text_table(["training", "steps/s", "speed"], cells))
