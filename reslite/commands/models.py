"""``reslite models``: the trained networks with their parameters, MultAdds and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from training.catalogue import Model
    from training.shipped import Costs


@click.command("models", epilog="Example: reslite models --json")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(name: str | None, as_json: bool) -> None:
    """List the trained networks; with a NAME, print all facts of that network.

    NAME may be a .safetensors file. The list needs the base installation only, a NAME the extra
    train.
    """
    from training.shipped import shipped_networks

    if name is None:
        rows = [_row(one.name, one.costs, one.psnr) for one in shipped_networks()]
        click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))
        return
    # Details need the packages that the network was trained with.
    from benchmarks.multadds import costs_of
    from training.catalogue import find_model

    model = find_model(name)
    costs = costs_of(model.recipe.network)
    row = _row(model.name, costs, model.training.get("psnr", {}))
    click.echo(json.dumps([row], indent=2) if as_json else _card(model, row))


def _row(name: str, costs: Costs, psnr: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "scales": [int(scale) for scale in costs.multadds_720p],
        "parameters": costs.parameters,
        "multadds_720p": costs.multadds_720p,
        "psnr": psnr,
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
