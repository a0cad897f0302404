"""``reslite ship``: all files of a network, proven and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reslite.apps.languages import LANGUAGES
from reslite.commands.export import parse_size, parse_sizes
from reslite.commands.network import NamedNetwork, takes_network
from reslite.commands.quantize import tune_option
from runtime.formats import FORMATS, USUAL_FORMATS, Format

if TYPE_CHECKING:
    from benchmarks.report.report import Report
    from runtime.snapdragon import Snapdragon


def _parse_targets(
    context: click.Context, option: click.Parameter, names: tuple[str, ...]
) -> tuple[Snapdragon, ...]:
    """Return the chips of these names, each once."""
    from runtime.snapdragon import snapdragon_named

    return tuple(dict.fromkeys(snapdragon_named(name) for name in names))


@click.command("ship", epilog="Example: reslite ship carn-m --scale 4 --out dist/")
@takes_network
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="dist",
    show_default=True,
    help="Folder of the bundle and its report.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice([name for name in FORMATS if name not in USUAL_FORMATS]),
    multiple=True,
    help="Export this format, too; coreai, Apple's Core AI, is beta.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Pictures to score on [default: crops of scikit-image's pictures].",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Find int8 scales on these pictures [default: the committed scales, if there are any].",
)
@tune_option
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Timed inferences of each file in each of three process starts.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: all].")
@click.option(
    "--size",
    "sizes",
    callback=parse_sizes,
    multiple=True,
    help="Write files whose input is fixed to this height x width, too; may be repeated.",
)
@click.option(
    "--image-io",
    is_flag=True,
    help="Write Core ML packages that take and return images of 8 bits, for Vision, too.",
)
@click.option(
    "--target",
    "targets",
    callback=_parse_targets,
    multiple=True,
    help="Compile the ONNX files of fixed size for this Qualcomm SoC, for example sm8650; may be "
    "repeated [default size: 128x128].",
)
@click.option(
    "--latency-size",
    callback=parse_size,
    default="128x128",
    show_default=True,
    help="Input height x width of the latency measurement.",
)
@click.option(
    "--app",
    "languages",
    type=click.Choice(list(LANGUAGES)),
    multiple=True,
    help="Write a sample app with a self-test into the folder app/; may be repeated.",
)
@click.option(
    "--overwrite", is_flag=True, help="Export again even valid files; tune int8 again, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
def command(
    network: NamedNetwork,
    out: Path,
    formats: tuple[Format, ...],
    data: Path | None,
    calibration: Path | None,
    tune: float | None,
    rounds: int,
    threads: int | None,
    sizes: tuple[tuple[int, int], ...],
    image_io: bool,
    targets: tuple[Snapdragon, ...],
    latency_size: tuple[int, int],
    languages: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export MODEL to ONNX, TFLite and Core ML in float32, float16 and int8, and measure it all.

    MODEL is a shipped network by name, weights that reslite trained, a checkpoint of others (.pth,
    .pt, .ckpt, .safetensors) of an architecture that the library spandrel knows, an ONNX file, or a
    class or function in Python: my_net.py:MyNet, package.module:MyNet.

    Every file is compared with its source, scored on real pictures and timed; the results are in
    manifest.json, report.json and report.html. Files of fixed size, which NPUs and browsers want,
    are compared only: they are the same networks. Valid existing files are kept. Files compiled for
    a Qualcomm SoC with --target are Qualcomm's context binaries in ONNX files.
    """
    from reslite.shipping import ship_network

    shipment = ship_network(
        *network.find(),
        out,
        formats=(*USUAL_FORMATS, *formats),
        data=data,
        calibration=calibration,
        tune=tune,
        overwrite=overwrite,
        rounds=rounds,
        threads=threads,
        sizes=sizes,
        image_io=image_io,
        targets=targets,
        latency_size=latency_size,
        apps=[LANGUAGES[one] for one in dict.fromkeys(languages)],
        announce=lambda line: click.echo(line, err=True),
    )
    if as_json:
        click.echo((out / "report.json").read_text(encoding="utf-8").rstrip())
        return
    click.echo(_table(shipment.report))
    for path in shipment.files:
        click.echo(f"{path}")


def _table(report: Report) -> str:
    from benchmarks.report.tables import text_table

    scoring = report.task.scoring
    quality = (scoring.psnr_title, "loss dB", scoring.ssim_title)
    header = ("file", "kB", "difference", *quality, "median ms")
    rows = []
    for row in report.rows:
        values = (
            f"{row.bytes / 1e3:.0f}",
            _figure(row.max_abs_diff, ".1e"),
            _figure(row.psnr, ".2f"),
            _figure(row.psnr_loss, ".3f"),
            _figure(row.ssim, ".4f"),
            _figure(row.latency.median if row.latency else None, ".1f"),
        )
        rows.append((row.file, *values))
    notes = [
        f"{kind} regions {before:.2f} → {after:.2f} dB"
        for kind, (before, after) in report.source.by_kind().items()
    ]
    notes += [
        f"{row.file} in half arithmetic: {row.float16.psnr_in_half:.1f} dB from the network, "
        f"headroom {row.float16.headroom:,.1f} (executed, not on a device)"
        for row in report.rows
        if row.float16 is not None
    ]
    notes += [fixed.described() for fixed in report.fixed_sizes]
    notes += sorted({f"– {row.not_run}" for row in report.rows if row.not_run})
    return "\n".join(
        [
            text_table(header, rows),
            f"{report.task.baseline_name} {report.baseline.psnr:.2f} dB, network in torch "
            f"{report.source.psnr:.2f} dB on {report.source.pictures} {report.pictures}",
            *notes,
        ]
    )


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
