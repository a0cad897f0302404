"""``reslite inspect``: what a network is, and which files it can become."""

from __future__ import annotations

import json
from typing import Any

import click

from reslite.commands.network import NamedNetwork, takes_network


@click.command("inspect", epilog="Example: reslite inspect realesr-animevideov3.pth")
@takes_network
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(network: NamedNetwork, as_json: bool) -> None:
    """Tell what MODEL is, a network as in 'reslite ship', and which files it can become.

    MultAdds are at an output of 1280×720; enlarging by interpolation, which papers do not count, is
    told beside. The halo is the number of pixels around a tile that its
    restoration depends on. Operators are those of the network as captured; one that reslite does
    not know is an error that names all of them with their modules.
    """
    from export.feasibility import obstacles
    from export.rewrites.interpolations import interpolation_multadds
    from export.sources.source import Source
    from runtime.manifest import HD

    found, scale = network.find()
    source = Source.of(found, scale)
    graph = source.graph
    facts: dict[str, Any] = {
        "name": found.name,
        "sha256": found.sha256,
        "architecture": found.architecture,
        "scale": source.scale,
        "parameters": sum(one.numel() for one in source.module.parameters()),
        "multadds_720p": graph.multadds(*HD),
        "interpolation_multadds_720p": interpolation_multadds(graph, *HD),
        "halo": graph.halo(),
        "pools_globally": graph.pools_globally,
        "operators": graph.operators(),
        "files": {
            f"{kind} {precision}": why for (kind, precision), why in obstacles(graph).items()
        },
    }
    click.echo(json.dumps(facts, indent=2) if as_json else _text(facts))


def _text(facts: dict[str, Any]) -> str:
    operators = ", ".join(f"{name} {count}" for name, count in facts["operators"].items())
    interpolation = facts["interpolation_multadds_720p"]
    lines = [
        f"{facts['name']}: {facts['architecture']}, ×{facts['scale']}",
        f"parameters  {facts['parameters']:,}",
        f"MultAdds    {facts['multadds_720p'] / 1e9:.1f} G at 1280×720"
        + (f", and {interpolation / 1e9:.1f} G of interpolation" if interpolation else ""),
        f"halo        {facts['halo']} pixels"
        + (", and one value pooled over the whole picture" if facts["pools_globally"] else ""),
        f"operators   {operators}",
    ]
    possible = [name for name, why in facts["files"].items() if not why]
    lines.append(f"files       {', '.join(possible) or 'none'}")
    lines += [f"not         {name}: {why}" for name, why in facts["files"].items() if why]
    return "\n".join(lines)
