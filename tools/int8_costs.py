"""What int8 costs at every scale: dB on the test sets, levels in saturated colours.

``make refresh`` writes the table into docs/results.md. For one network alone, while tables are
being worked on: ``python -m tools.int8_costs carn-m 4 [TABLE]``, with ``RESLITE_DATA`` set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import runtime
from benchmarks.accuracy import network_restorer, psnr_loss, score, session_restorer
from benchmarks.pairs import evaluation_pairs
from export.artifacts import write_artifact
from export.colours import CORNERS, TONES, chequer, flat
from export.lowered import lower_for
from export.parity import Restore, restore_with
from export.scales import ScaleTable, read_scale_table
from export.sources.source import Source
from export.variants import Variant
from quantize import load_scales
from runtime.errors import UserError
from training.catalogue import find_model
from training.data.pictures import data_folder


@dataclass(frozen=True)
class Costs:
    """What the int8 file of a network costs at one scale, against the float network.

    Attributes:
        losses: Loss in dB by test set.
        worst: Largest loss in dB of one picture of these sets.
        flat: Largest difference in the middle of flat areas, in levels.
        chequers: Largest difference on chequers of 8 restored pixels or more, in levels.
    """

    losses: Mapping[str, float]
    worst: float
    flat: int
    chequers: int


def costs(source: Source, table: ScaleTable, data: Path) -> Costs:
    """Measure the int8 TFLite file of a network on the test sets of its task and on colours."""
    network = network_restorer(source.module, source.graph.sides)
    losses, worst = dict[str, float](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = written(source, table, Path(folder))
        flat_shift, chequer_shift = shifts(source, file)
        with runtime.open(file) as session:
            for one in source.model.task.evaluation:
                pairs = evaluation_pairs(source.model.task, one, data, source.scale)
                of_network, of_file = score(network, pairs), score(session_restorer(session), pairs)
                losses[one.name] = psnr_loss(of_network, of_file)
                lost = (a.psnr - b.psnr for a, b in zip(of_network.rows, of_file.rows, strict=True))
                worst = max(worst, *lost)
    return Costs(losses, worst, max(flat_shift.values()), max(chequer_shift.values()))


def shifts(source: Source, file: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the largest difference from the float network in saturated colours, in levels.

    Args:
        source: The network.
        file: Its int8 TFLite file.

    Returns:
        In the middle of flat areas by tone, and on chequers by their two corners of the cube.
    """
    scale, network = source.scale, restore_with(source.module.eval(), source.graph.sides)
    middle = slice(10 * scale, -10 * scale)
    with runtime.open(file, threads=1) as session:

        def shift(picture: NDArray[np.uint8]) -> NDArray[np.int_]:
            difference: NDArray[np.int_] = np.abs(
                _levels(session.run, picture) - _levels(network, picture)
            )
            return difference

        areas = {str(tone): int(shift(flat(tone, 28))[middle, middle].max()) for tone in TONES}
        boards = {
            f"{one} {other}": int(shift(chequer(one, other, squares=4)).max())
            for one, other in combinations(CORNERS, 2)
        }
    return areas, boards


def costs_table(rows: Mapping[tuple[str, int], Costs], titles: Mapping[str, str]) -> str:
    """Return the costs by network and scale as a table in Markdown.

    Args:
        rows: The costs.
        titles: The titles of the test sets.
    """
    sets = "".join(f" {title} |" for title in titles.values())
    lines = [
        f"| |{sets} worst picture | flat areas | chequers |",
        f"| --- |{' ---: |' * (len(titles) + 3)}",
    ]
    for (name, scale), one in rows.items():
        lost = "".join(f" {one.losses[test_set]:.3f} |" for test_set in titles)
        lines.append(f"| `{name}` ×{scale} |{lost} {one.worst:.3f} | {one.flat} | {one.chequers} |")
    return "\n".join(lines)


def written(source: Source, table: ScaleTable, folder: Path) -> Path:
    """Write the int8 TFLite file of a network into a folder and return its path."""
    variant = Variant("tflite", "int8")
    lowered = lower_for(source, variant, table)
    return folder / write_artifact(source, variant, lowered, folder, table).file


def _levels(restore: Restore, picture: NDArray[np.uint8]) -> NDArray[np.int_]:
    restored = restore(picture.astype(np.float32) / np.float32(255))
    levels: NDArray[np.int_] = np.rint(np.clip(restored, 0, 1) * 255).astype(np.int_)
    return levels


@click.command()
@click.argument("name")
@click.argument("scale", type=int)
@click.argument("table", required=False, type=click.Path(exists=True, path_type=Path))
def main(name: str, scale: int, table: Path | None) -> None:
    """Print what int8 costs network NAME at SCALE, with the published table or TABLE."""
    data = data_folder()
    if data is None:
        raise UserError("losses are measured on Set5, Set14 and B100: set RESLITE_DATA")
    source = Source.of(find_model(name), scale)
    chosen = load_scales(name, scale) if table is None else read_scale_table(table)
    titles = {one.name: one.title for one in source.model.task.evaluation}
    click.echo(costs_table({(name, scale): costs(source, chosen, data)}, titles))


if __name__ == "__main__":
    main()
