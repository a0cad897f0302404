"""``reslite train``: train a network from a recipe, or resume a run."""

from __future__ import annotations

from pathlib import Path

import click


def _print_schema(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    import json

    from training.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=1))
    context.exit()


@click.command("train", epilog="Example: reslite train carn-m --data pictures/ --out runs/carn-m")
@click.argument("recipe")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON schema of recipes, for editors, and exit.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the recipe's train and valid folders [default: RESLITE_DATA].",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [default: runs/RECIPE].")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, for example seed=2; may be repeated.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: torch's].")
def command(
    recipe: str,
    data: Path | None,
    out: Path | None,
    changes: tuple[str, ...],
    device: str,
    threads: int | None,
) -> None:
    """Train RECIPE, the name of a shipped recipe or a YAML file.

    The run folder gets checkpoints, TensorBoard logs and, at the end, weights.safetensors. Running
    the same command again resumes from the last checkpoint and ends with the same weights.
    """
    import torch

    from runtime.errors import UserError
    from training.data.pictures import data_folder
    from training.recipe_reading import load_recipe
    from training.run import require_device
    from training.run_folder import owned
    from training.trainer import train

    chosen = load_recipe(recipe, changes)
    require_device(device)
    data = data or data_folder()
    if data is None:
        raise UserError("no training pictures: pass --data DIR or set RESLITE_DATA")
    if threads:
        torch.set_num_threads(threads)
    out = out or Path("runs") / chosen.name
    with owned(out):
        weights = train(chosen, data, out, device=device)
    click.echo(f"trained weights: {weights}")
