"""Measure all published figures of the trained weights again.

``make refresh RUNS="runs/carn/weights.safetensors …"`` copies the weights of finished runs into
``training/weights``, scores them on Set5, Set14 and B100 or on SHDD, finds their tables of scales
anew, updates the gate's baseline and rewrites the tables and figures of docs/results.md. A run may
be a file of ``training/weights`` itself, which is then scored again. ``make refresh`` does the same
for all shipped networks, without scoring them again. Commit all changes together. Refreshing needs
``RESLITE_DATA`` and, because it measures latency, an otherwise idle machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from torch import nn

import runtime
from benchmarks.accuracy import (
    Scores,
    baseline,
    finite,
    network_restorer,
    psnr_loss,
    score,
    session_restorer,
)
from benchmarks.multadds import layers_of_module, total
from benchmarks.pairs import FolderPairs, Pair, evaluation_pairs, pairs_in
from benchmarks.report.curves import draw_curves, logged_runs, read_curves
from benchmarks.report.experts import draw, explain
from benchmarks.report.report import Report
from benchmarks.snapshots import NETWORK, Reference, baseline_path, gate_pictures, snapshot
from export.parity import restore_with
from export.sources.source import Source
from quantize import load_scales, scales_path
from quantize.ptq import find_scales
from reslite.shipping import ship
from runtime.atomic import replacing
from runtime.errors import UserError
from tools.before_and_after import astronaut, draw_before_and_after
from tools.int8_costs import Costs, costs, costs_table
from tools.result_tables import (
    artifacts_table,
    multadds_finding,
    read_published,
    scores_table,
    shdd_table,
)
from training.catalogue import Model, find_model, list_models
from training.checkpoint import load_tensors, save_tensors
from training.data.pictures import data_folder
from training.shipped import WEIGHTS_FOLDER
from training.tasks import SHDD, SUPER_RESOLUTION, EvaluationSet

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results.md"
"""The page with all figures measured here."""

PUBLISHED = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Shown:
    """A network whose files the page shows.

    Attributes:
        scale: The scale of the files.
        gated: Whether the gate holds the network to a baseline.
        lighter: A network of fewer MultAdds to compare the latency with, or None.
        draw: Draws a figure from the network and its bundle, or None.
    """

    scale: int
    gated: bool = False
    lighter: str | None = None
    draw: Callable[[Model, Path], None] | None = None


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True, path_type=Path))
def refresh(runs: tuple[Path, ...]) -> None:
    """Publish RUNS, the weights.safetensors of finished runs, and measure their networks again.

    Without RUNS, all networks are measured again.
    """
    data = data_folder()
    if data is None:
        raise UserError("the published scores are on Set5, Set14 and B100: set RESLITE_DATA")
    renewed = set()
    for run in runs:
        model = find_model(str(run))
        publish(model, data)
        redraw_curves(run, ROOT / "docs" / "curves" / f"{model.name}.svg")
        renewed.add(model.name)
    models = list_models()
    measured = [model for model in models if not renewed or model.name in renewed]
    for model in measured:
        for scale in model.scales:
            find_scales(Source.of(model, scale)).write(scales_path(model.name, scale))
            click.echo(f"scales of {model.name} ×{scale}")
    published = read_published(PUBLISHED)
    enlarging = {one.name: one.training for one in models if one.task == SUPER_RESOLUTION}
    keeping = {one.name: one.training for one in models if one.task in SHDD.values()}
    titles = {one.name: one.title for one in SUPER_RESOLUTION.evaluation}
    levels = {one.name: one.title.removeprefix("SHDD ") for one in SHDD["moderate"].evaluation}
    sections = {
        "scores": scores_table(enlarging, bicubic_scores(data), titles, published),
        "shdd": shdd_table(keeping, levels, published),
        "int8": costs_table(int8_costs(models, data), titles),
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in measured:
            if model.name in SHOWN:
                sections |= ship_again(model, Path(folder) / model.name, data)
    rewrite(RESULTS, sections)


def int8_costs(models: Sequence[Model], data: Path) -> dict[tuple[str, int], Costs]:
    """Measure what the published tables of networks that enlarge cost, by name and scale."""
    return {
        (model.name, scale): costs(Source.of(model, scale), load_scales(model.name, scale), data)
        for model in models
        if model.task == SUPER_RESOLUTION
        for scale in model.scales
    }


def redraw_curves(run: Path, figure: Path) -> None:
    """Draw the curves of a run from its log; weights that ship have none and keep their figure."""
    if run.resolve().parent != WEIGHTS_FOLDER.resolve():
        curves = [curve for folder in logged_runs(run) for curve in read_curves(folder)]
        draw_curves(curves, figure)


def ship_again(model: Model, bundle: Path, data: Path) -> dict[str, str]:
    """Ship a network into ``bundle`` and update its baseline and figures.

    Returns:
        The sections of the page about the network, by name.
    """
    shown, task = SHOWN[model.name], model.task
    scale = shown.scale
    source = Source.of(model, scale)
    report = ship(
        source,
        bundle,
        table=load_scales(model.name, scale),
        pairs=pairs_in(data / "set5", task, scale),
        pictures="Set5" if task.degradation.reduces else f"Set5, {task.baseline_name}",
        announce=click.echo,
    ).report
    if shown.gated:
        reference = Reference(NETWORK, restore_with(source.module))
        found = snapshot(bundle, reference, gate_pictures(task, scale))
        found.write(baseline_path(model.name, scale))
    if shown.draw is not None:
        shown.draw(model, bundle)
    sets = task.evaluation  # scored besides Set5: the set of the same task, else the second
    second = next((one for one in sets if one.name == task.name), sets[1])
    pairs = evaluation_pairs(task, second, data, scale)
    lost = losses(source.module, report, bundle, pairs)
    sections = {f"artifacts {model.name}": artifacts_table(report, ("Set5", second.title), lost)}
    if shown.lighter is not None:
        multadds = {
            one: total(layers_of_module(find_model(one).at_scale(scale), scale)).multadds
            for one in (model.name, shown.lighter)
        }
        sections["multadds"] = multadds_finding(report, shown.lighter, multadds)
    return sections


def losses(
    network: nn.Module, report: Report, bundle: Path, pairs: FolderPairs
) -> dict[str, float]:
    """Return the loss in dB of every scored file of a bundle on further pictures."""
    source = score(network_restorer(network), pairs)
    lost = {}
    for row in report.rows:
        if row.psnr is not None:
            with runtime.open(bundle / row.file) as session:
                found = score(session_restorer(session), pairs)
            lost[row.file] = psnr_loss(source, found)
    return lost


def publish(model: Model, data: Path) -> None:
    """Copy finished weights into the package, with their scores in the metadata."""
    tensors, metadata = load_tensors(model.path)
    record, task = dict(model.training), model.task
    scores = {one.name: test_scores(model, one, data) for one in task.evaluation}
    if task.degradation.kinds:
        (scale,) = model.scales
        record["kinds"] = {
            kind: [rounded(one, 2) for one in pair]
            for kind, pair in scores[task.name][scale].by_kind().items()
        }
        before = {
            one.name: score(baseline(task, scale), evaluation_pairs(task, one, data, scale))
            for one in task.evaluation
        }
        record["distorted"] = {name: rounded(one.psnr) for name, one in before.items()}
    quantities: Mapping[str, Callable[[Scores], float | None]] = {
        "psnr": lambda one: one.psnr,
        "worst": lambda one: one.worst.psnr,
        "ssim": lambda one: one.ssim,
    }
    for quantity, of in quantities.items():
        record[quantity] = {
            name: {str(scale): rounded(of(one)) for scale, one in row.items()}
            for name, row in scores.items()
        }
    path = WEIGHTS_FOLDER / f"{model.name.replace('-', '_')}.safetensors"
    save_tensors(path, tensors, {**metadata, "training": json.dumps(record)})
    click.echo(f"{path}: {record['psnr']}")


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Return a figure as records hold it: None if it is infinite, which JSON cannot hold."""
    found = finite(value)
    return None if found is None else round(found, digits)


def test_scores(model: Model, chosen: EvaluationSet, data: Path) -> dict[int, Scores]:
    """Score a network on a set of evaluation pictures at each of its scales."""
    return {
        scale: score(
            network_restorer(model.at_scale(scale)),
            evaluation_pairs(model.task, chosen, data, scale),
            progress=True,
        )
        for scale in model.scales
    }


def bicubic_scores(data: Path) -> dict[int, dict[str, float]]:
    """Return PSNR-Y of bicubic enlargement at every scale on every test set."""
    return {
        scale: {
            one.name: score(
                baseline(SUPER_RESOLUTION, scale),
                evaluation_pairs(SUPER_RESOLUTION, one, data, scale),
            ).psnr
            for one in SUPER_RESOLUTION.evaluation
        }
        for scale in (2, 3, 4)
    }


def draw_experts(model: Model) -> None:
    """Draw the activity of the experts on a distorted picture of scikit-image."""
    distorted = Pair.degraded("astronaut", astronaut()[:256, 90:410], model.task, 1).low
    explained = explain(model.network(), model.name, distorted)
    draw(explained, ROOT / "docs" / "experts.png")


SHOWN: Mapping[str, Shown] = {
    "carn": Shown(4, lighter="carn-m"),
    "carn-m": Shown(
        4,
        gated=True,
        draw=lambda _, bundle: draw_before_and_after(
            ROOT / "docs" / "before_after.png",
            {"CARN-M x4, int8 TFLite": bundle / "carn_m_x4_int8.tflite"},
        ),
    ),
    "mepsnet-s": Shown(1, gated=True, draw=lambda model, _: draw_experts(model)),
}
"""The networks whose files the page shows."""


def rewrite(path: Path, sections: Mapping[str, str]) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file."""
    text = path.read_text(encoding="utf-8")
    for name, content in sections.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(opening)
        _, closed, after = rest.partition(closing)
        if not (found and closed):
            raise UserError(f"{path}: has no section {opening.strip()} … {closing}; add it")
        text = f"{before}{opening}{content}\n{closing}{after}"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    refresh()
