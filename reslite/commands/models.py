"""``reslite models``: the trained networks with their parameters, MultAdds and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from training.catalogue import Model


@click.command("models", epilog="Example: reslite models --json")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(name: str | None, as_json: bool) -> None:
    """List the trained networks; with a NAME, print all facts of that network."""
    from training.catalogue import find_model, list_models

    models = [find_model(name)] if name else list_models()
    rows = [_row(model) for model in models]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif name:
        click.echo(_card(models[0], rows[0]))
    else:
        click.echo(_table(rows))


def _row(model: Model) -> dict[str, Any]:
    from benchmarks.multadds import layers_of_module, total

    network = model.recipe.network.build()
    costs = {
        str(scale): total(layers_of_module(network.at_scale(scale), scale))
        for scale in model.scales
    }
    return {
        "name": model.name,
        "scales": list(model.scales),
        "parameters": {
            **{scale: cost.parameters for scale, cost in costs.items()},
            "all": sum(parameter.numel() for parameter in network.parameters()),
        },
        "multadds_720p": {scale: cost.multadds for scale, cost in costs.items()},
        "psnr": model.training.get("psnr", {}),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'model':<10} {'scale':>5} {'parameters':>11} {'MultAdds':>9}  PSNR (dB)"]
    for row in rows:
        for scale in map(str, row["scales"]):
            scores = "  ".join(
                f"{name} {by_scale[scale]:.2f}"
                for name, by_scale in row["psnr"].items()
                if by_scale.get(scale) is not None
            )
            lines.append(
                f"{row['name']:<10} {'×' + scale:>5} {row['parameters'][scale]:>11,} "
                f"{row['multadds_720p'][scale] / 1e9:>7.1f} G  {scores}"
            )
    lines.append("MultAdds are at a 1280×720 output; super-resolution is scored on Y, else on RGB.")
    return "\n".join(lines)


def _card(model: Model, row: dict[str, Any]) -> str:
    import yaml

    from training.catalogue import history, same_run, starts

    runs = history(model.training)

    def hashes(run: Mapping[str, Any]) -> list[str]:
        return [
            next(known["sha256"] for known in runs if same_run(known, one)) for one in starts(run)
        ]

    latest, *earlier = [{**run, "start": hashes(run)} for run in runs]
    latest.pop("psnr", None)  # the row has it
    recipe = model.recipe.model_dump(mode="json")
    facts = {**row, "training": latest, "recipe": recipe, "earlier_runs": earlier}
    return yaml.safe_dump(facts, sort_keys=False, default_flow_style=None).rstrip()
