"""Measure again everything that is published of the trained weights, in one go.

``make refresh RUNS="runs/carn/weights.safetensors …"`` takes finished runs over into
``training/weights``, scores them on Set5, Set14 and B100 or on SHDD, finds their tables of scales
anew, updates the gate's baseline and rewrites the tables of docs/results.md and the figures that
tell of them. ``make refresh`` does so for all networks as they are. What it changes belongs into
one commit. It needs ``RESLITE_DATA`` and a machine that does nothing else meanwhile: it measures
latency.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw

import runtime
from benchmarks.accuracy import (
    FolderPairs,
    Pair,
    Scores,
    baseline,
    finite,
    network_restorer,
    pairs_in,
    psnr_loss,
    psnr_name,
    score,
    session_restorer,
)
from benchmarks.gate import baseline_path, gate_pictures, snapshot
from benchmarks.multadds import layers_of_module, total
from benchmarks.report.curves import draw_curves, logged_runs, read_curves
from benchmarks.report.experts import draw, explain
from benchmarks.report.report import RESTORES_TILES, Report
from export.parity import restore_with
from quantize import load_scales, scales_path
from quantize.ptq import find_scales
from reslite.shipping import Shipment, ship
from runtime.atomic import replacing
from runtime.errors import UserError
from training.catalogue import WEIGHTS_FOLDER, Model, find_model, history, list_models
from training.checkpoint import load_tensors, save_tensors
from training.data.pictures import Picture, data_folder, picture_paths
from training.degradations import bicubic, shdd
from training.degradations.levels import Level

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results.md"
"""The page that shows everything measured here."""

TEST_SETS = {"set5": "Set5", "set14": "Set14", "b100": "B100"}
GATED = {"carn-m", "mepsnet-s"}
"""Networks that the gate holds to a baseline."""

FIGURE_SCALE = 4
SHIPPED = {"carn": 4, "carn-m": 4, "mepsnet-s": 1}
"""Networks whose files the page shows, and at which scale."""

SHDD_SEED, SHDD_PICTURES = 7, {"valid": 4, "b100/HR": 8}
"""The test split of SHDD: how many pictures of which folder, drawn with this seed."""

# PSNR-Y at ×2, ×3 and ×4 of one multi-scale network: Ahn et al. 2018, Table 1.
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "carn": {
        "set5": (37.76, 34.29, 32.13),
        "set14": (33.52, 30.29, 28.60),
        "b100": (32.09, 29.06, 27.58),
    },
    "carn-m": {
        "set5": (37.53, 33.99, 31.92),
        "set14": (33.26, 30.08, 28.42),
        "b100": (31.92, 28.91, 27.44),
    },
}


# RGB PSNR of MEPSNet on SHDD, whose pictures are full DIV2K's: thesis, chapter 7.
PUBLISHED_SHDD: Mapping[Level, float] = {"easy": 34.23, "moderate": 33.47, "difficult": 32.71}


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True, path_type=Path))
def refresh(runs: tuple[Path, ...]) -> None:
    """Publish RUNS, the weights.safetensors of finished runs, and measure their networks again.

    Without RUNS, all networks are measured again.
    """
    data = data_folder()
    if data is None:
        raise UserError("the published scores are on Set5, Set14 and B100: set RESLITE_DATA")
    published = set()
    for run in runs:
        model = find_model(str(run))
        publish(model, data)
        curves = [curve for folder in logged_runs(run) for curve in read_curves(folder)]
        draw_curves(curves, ROOT / "docs" / "curves" / f"{model.name}.svg")
        published.add(model.name)
    models = list_models()
    measured = [model for model in models if not published or model.name in published]
    for model in measured:
        for scale in model.scales:
            find_scales(model, scale).write(scales_path(model.name, scale))
            click.echo(f"scales of {model.name} ×{scale}")
    sections = {
        "scores": scores_table([model for model in models if 1 not in model.scales], data),
        "shdd": shdd_table([model for model in models if 1 in model.scales]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in measured:
            if model.name in SHIPPED:
                sections |= ship_again(model, Path(folder) / model.name, data)
    rewrite(RESULTS, sections)


def ship_again(model: Model, bundle: Path, data: Path) -> dict[str, str]:
    """Ship a network into ``bundle`` and have the baseline and the figures follow.

    Returns:
        The sections of the page that tell of it.
    """
    scale = SHIPPED[model.name]
    shipment = ship(
        model,
        scale,
        bundle,
        table=load_scales(model.name, scale),
        pairs=pairs_in(data / "set5", scale),
        pictures="Set5" if scale > 1 else "Set5, distorted",
        announce=click.echo,
    )
    if model.name in GATED:
        found = snapshot(bundle, restore_with(model.at_scale(scale)), gate_pictures(scale))
        found.write(baseline_path(model.name, scale))
    sections = {f"artifacts {model.name}": artifacts_table(shipment, bundle, data)}
    if model.name == "carn":
        sections["multadds"] = multadds_finding(shipment.report)
    if model.name == "carn-m":
        draw_figure(bundle / "carn_m_x4_int8.tflite")
    if model.name == "mepsnet-s":
        draw_experts(model)
    return sections


def publish(model: Model, data: Path) -> None:
    """Take finished weights over into the package, with their scores in the metadata."""
    tensors, metadata = load_tensors(model.path)
    record = dict(model.training)
    if model.scales == (1,):
        scores = {f"shdd-{level}": {1: one} for level, one in shdd_scores(model, data).items()}
        record["kinds"] = {
            kind: [None if finite(one) is None else round(one, 2) for one in pair]
            for kind, pair in scores["shdd-moderate"][1].by_kind().items()
        }
        record["distorted"] = {
            f"shdd-{level}": round(score(baseline(1), shdd_pairs(data, level), 1).psnr, 4)
            for level in shdd.CHOPS
        }
    else:
        scores = {name: test_scores(model, data / name) for name in TEST_SETS}
    for quantity, digits in (("psnr", 4), ("ssim", 4)):
        record[quantity] = {
            name: {str(scale): round(getattr(one, quantity), digits) for scale, one in row.items()}
            for name, row in scores.items()
        }
    path = WEIGHTS_FOLDER / f"{model.name.replace('-', '_')}.safetensors"
    save_tensors(path, tensors, {**metadata, "training": json.dumps(record)})
    click.echo(f"{path}: {record['psnr']}")


def test_scores(model: Model, folder: Path) -> dict[int, Scores]:
    """Score a super-resolution network on one test set at each of its scales."""
    return {
        scale: score(
            network_restorer(model.at_scale(scale)), pairs_in(folder, scale), scale, progress=True
        )
        for scale in model.scales
    }


def shdd_pairs(data: Path, level: Level) -> FolderPairs:
    """Return the test split of SHDD at a level."""
    random = np.random.default_rng(SHDD_SEED)
    chosen: list[Path] = []
    for name, count in SHDD_PICTURES.items():
        paths = picture_paths(data / name)
        chosen += [paths[index] for index in sorted(random.permutation(len(paths))[:count])]
    return FolderPairs(tuple(chosen), None, 1, level)


def shdd_scores(model: Model, data: Path) -> dict[Level, Scores]:
    """Score a network that keeps the size on the test split of SHDD, at each level."""
    restore = network_restorer(model.at_scale(1))
    return {
        level: score(restore, shdd_pairs(data, level), 1, progress=True) for level in shdd.CHOPS
    }


def shdd_table(models: Sequence[Model]) -> str:
    """Return RGB PSNR of every level and of every kind of region, as Markdown."""
    lines = [
        f"| | distorted | {' | '.join(model.name for model in models)} | thesis |",
        f"| --- | ---: | {'---: | ' * len(models)}---: |",
    ]
    for level, thesis in PUBLISHED_SHDD.items():
        name = f"shdd-{level}"
        cells = [f"**{model.training['psnr'][name]['1']:.2f}**" for model in models]
        before = models[0].training["distorted"][name]
        lines.append(f"| {level} | {before:.2f} | {' | '.join(cells)} | {thesis} |")
    for kind, (before, _) in models[0].training["kinds"].items():
        cells = [f"{model.training['kinds'][kind][1]:.2f}" for model in models]
        shown = "" if before is None else f"{before:.2f}"
        lines.append(f"| {kind} regions | {shown} | {' | '.join(cells)} | |")
    lines.append(f"| training | | {' | '.join(effort(m.training) for m in models)} | |")
    return "\n".join(lines)


def effort(record: Mapping[str, Any]) -> str:
    """Return the steps and hours of a training record and of those it started from, each once."""
    runs = history(record)
    steps = sum(run["steps"] for run in runs)
    hours = sum(run["hours"] for run in runs)
    return f"{steps:,} steps, {hours:.1f} h"


def scores_table(models: Sequence[Model], data: Path) -> str:
    """Return PSNR-Y of every network beside the paper's and bicubic's, as Markdown."""
    lines = [
        "| | scale | "
        + " | ".join(f"{title} ours / paper" for title in TEST_SETS.values())
        + " | training |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for scale in (2, 3, 4):
        enlarge = partial(bicubic.enlarge, scale=scale)
        cells = [
            f"{score(enlarge, pairs_in(data / name, scale), scale).psnr:.2f}" for name in TEST_SETS
        ]
        lines.append(f"| bicubic | ×{scale} | {' | '.join(cells)} | |")
    for model in models:
        record = model.training
        for index, scale in enumerate(model.scales):
            cells = [
                f"**{record['psnr'][name][str(scale)]:.2f}** / "
                f"{PUBLISHED[model.name][name][index]:.2f}"
                for name in TEST_SETS
            ]
            lines.append(f"| {model.name} | ×{scale} | {' | '.join(cells)} | {effort(record)} |")
    return "\n".join(lines)


def artifacts_table(shipment: Shipment, folder: Path, data: Path) -> str:
    """Return what ``ship`` measured of one network's files, as Markdown."""
    report = shipment.report
    latency = report.latency
    assert latency is not None
    machine = latency.environment
    if report.scale > 1:
        second, pairs = "Set14", list(pairs_in(data / "set14", report.scale))
    else:
        second, pairs = "SHDD moderate", list(shdd_pairs(data, "moderate"))
    lines = [
        f"{report.model} ×{report.scale}; {psnr_name(report.scale)} on {report.pictures} "
        f"({report.source.psnr:.2f} dB in torch), "
        f"speed against its float32 TFLite file at an input of 128×128 on {machine.cpu} "
        f"({', '.join(machine.simd)}; {latency.threads} threads, median of {latency.rounds} "
        "interleaved rounds).",
        "",
        f"| file | kB | max. difference | Set5 dB | lost on Set5 | lost on {second} | speed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    base = latency.row(f"{report.model.replace('-', '_')}_x{report.scale}_float32.tflite")
    module = find_model(report.model).at_scale(report.scale)
    source = score(network_restorer(module), pairs, report.scale)
    for row in report.rows:
        if row.not_run == RESTORES_TILES:
            continue
        if row.psnr is None or row.psnr_loss is None or row.latency is None or base is None:
            lines.append(f"| `{row.file}` | {row.bytes / 1e3:.0f} | {row.not_run} | | | | |")
            continue
        with runtime.open(folder / row.file) as session:
            lost = psnr_loss(source, score(session_restorer(session), pairs, report.scale))
        timed = latency.row(row.file)
        assert timed is not None
        ratios = [a / b for a, b in zip(base.samples_ms, timed.samples_ms, strict=True)]
        lines.append(
            f"| `{row.file}` | {row.bytes / 1e3:.0f} | {row.max_abs_diff:.1e} | {row.psnr:.2f} | "
            f"{row.psnr_loss:.3f} | {lost:.3f} | {np.median(ratios):.2f}× |"
        )
    return "\n".join(lines)


def multadds_finding(report: Report) -> str:
    """Return in words what CARN-M's fewer MultAdds buy, from one interleaved run of both."""
    latency = report.latency
    assert latency is not None

    def gain(precision: str) -> float:
        slow = latency.row(f"carn_x{report.scale}_{precision}.tflite")
        fast = latency.row(f"carn_m_x{report.scale}_{precision}.tflite")
        assert slow is not None
        assert fast is not None
        pairs = zip(slow.samples_ms, fast.samples_ms, strict=True)
        return float(np.median([a / b for a, b in pairs]))

    multadds = {
        model.name: total(layers_of_module(model.at_scale(report.scale), report.scale)).multadds
        for model in map(find_model, ("carn", "carn-m"))
    }
    sentence = (
        f"CARN-M ×{report.scale} has {multadds['carn'] / multadds['carn-m']:.1f}× fewer MultAdds "
        f"than CARN. With TFLite on this CPU that makes it {gain('float32'):.2f}× as fast in "
        f"float32 and {gain('int8'):.2f}× in int8"
    )
    npu = {row.model: row.estimate for row in report.npu}
    if "carn" in npu and "carn-m" in npu:
        one = npu["carn-m"]
        ratio = npu["carn"].milliseconds / one.milliseconds
        sentence += (
            f"; on an {one.target.accelerator} NPU at {one.size[0]}×{one.size[1]} {ratio:.2f}× "
            f"({one.label}, {one.target.system}, {one.target.memory})"
        )
    return sentence + "."


def draw_figure(file: Path) -> None:
    """Draw bicubic, restored and original side by side, from a picture of scikit-image's."""
    original = _astronaut()[20:212, 130:322]
    low = bicubic.reduce(original, FIGURE_SCALE)
    with runtime.open(file) as session:
        restored = session_restorer(session)(low)
    panels: dict[str, Picture] = {
        "bicubic": bicubic.enlarge(low, FIGURE_SCALE),
        "CARN-M x4, int8 TFLite": restored,
        "original": original,
    }
    side, caption, gap = 288, 24, 8
    figure = Image.new("RGB", (3 * side + 2 * gap, side + caption), "white")
    draw = ImageDraw.Draw(figure)
    for index, (name, pixels) in enumerate(panels.items()):
        left = index * (side + gap)
        panel = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        figure.paste(panel, (left, 0))
        draw.text((left + side // 2, side + caption // 2), name, "black", anchor="mm", font_size=15)
    with replacing(ROOT / "docs" / "before_after.png") as temporary:
        figure.save(temporary)


def draw_experts(model: Model) -> None:
    """Draw what the experts look at in a distorted picture of scikit-image's."""
    distorted = Pair.distorted("astronaut", _astronaut()[:256, 90:410], "moderate").low
    explained = explain(model.network(), model.name, distorted)
    draw(explained, ROOT / "docs" / "experts.png")


def _astronaut() -> Picture:
    from skimage import data

    picture: Picture = data.astronaut()  # type: ignore[no-untyped-call]
    return picture


def rewrite(path: Path, sections: Mapping[str, str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file."""
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
