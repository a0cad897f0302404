"""``reslite models``: the networks that ship with their parameters, MultAdds and scores.

With ``--field``, the networks to compare them with, which ship as recipes and without weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from runtime.errors import UserError

if TYPE_CHECKING:
    from benchmarks.field import FieldRow
    from training.catalogue import Model
    from training.shipped import Costs


@click.command("models", epilog="Example: reslite models --json")
@click.argument("name", required=False)
@click.option(
    "--field",
    "of_field",
    is_flag=True,
    help="List the networks to compare with, which ship as recipes without weights.",
)
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(name: str | None, of_field: bool, as_json: bool) -> None:
    """List the networks that ship; with a NAME, print all facts of that network.

    NAME may be a .safetensors file. The list needs the base installation only, a NAME the extra
    train, --field the extra bench.
    """
    from training.shipped import shipped_networks

    if of_field:
        if name is not None:
            raise UserError(f"{name}: --field lists all networks of the field; leave the name out")
        from benchmarks.field import field_rows

        field = list(field_rows())
        found = [asdict(row) for row in field]
        click.echo(json.dumps(found, indent=2) if as_json else _field_table(field))
        return
    if name is None:
        rows = [_row(one.name, one.costs, one.psnr, one.trained) for one in shipped_networks()]
        click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))
        return
    # Details need the packages that the network was trained with.
    from benchmarks.multadds import costs_of
    from training.catalogue import find_model

    model = find_model(name)
    costs = costs_of(model.recipe.network)
    row = _row(model.name, costs, model.training.get("psnr", {}))
    click.echo(json.dumps([row], indent=2) if as_json else _card(model, row))


def _row(name: str, costs: Costs, psnr: Mapping[str, Any], trained: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "trained": trained,
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
            scores = scores if row["trained"] else "not trained yet"
            lines.append(
                f"{row['name']:<10} {'×' + scale:>5} {row['parameters'][scale]:>11,} "
                f"{row['multadds_720p'][scale] / 1e9:>7.1f} G  {scores}"
            )
    lines.append("MultAdds are at a 1280×720 output; super-resolution is scored on Y, else on RGB.")
    return "\n".join(lines)


def _field_table(rows: list[FieldRow]) -> str:
    title = f"{'network':<14}{'scale':<9}{'parameters':>11}{'MultAdds':>11}"
    lines = [
        f"{'':<23}{'as trained, RGB':>22}    {'as published':<17}   published",
        f"{title}   {'weights':>10}{'MultAdds':>11}   {'parameters and MultAdds'}",
    ]
    for row in rows:
        scales = " ".join(f"×{scale}" for scale in row.scales)
        printed = " ".join(filter(None, (row.published_parameters, row.published_multadds)))
        lines.append(
            f"{row.name:<14}{scales:<9}{row.parameters:>11,}{_giga(row.multadds_720p):>11}"
            f"   {row.weights_as_published:>10,}{_giga(row.multadds_as_published):>11}"
            f"   {'=' if row.agrees else '≠'} {printed} ({row.source})"
        )
    remarks = dict.fromkeys(f"≠ {row.name}: {row.remark}." for row in rows if not row.agrees)
    lines += [
        "MultAdds are at a 1280×720 output. As published: with the picture channels of the source,",
        "without biases, each convolution charged at the size of its output.",
        *remarks,
    ]
    return "\n".join(lines)


def _giga(multadds: int) -> str:
    return f"{multadds / 1e9:,.1f} G"


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
