"""``reslite bench``: latency of exported files, and estimates for NPUs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reslite.commands.export import parse_size

if TYPE_CHECKING:
    from benchmarks.devices.cpu import Contender
    from runtime.manifest import Artifact


@click.command(
    "bench",
    epilog="Example: reslite bench dist/*.tflite --reference dist/carn_m_x4_float32.tflite",
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--reference", type=click.Path(path_type=Path), help="Compare with this file.")
@click.option(
    "--size", callback=parse_size, help="Input height x width [default: of a 720p output]."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Timed inferences of each file.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: all].")
@click.option("--openvino", is_flag=True, help="Run ONNX files on OpenVINO too.")
@click.option("--npu", metavar="NAME", help="Estimate on an Arm NPU, for example ethos-u65-256.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def command(
    files: tuple[Path, ...],
    reference: Path | None,
    size: tuple[int, int] | None,
    rounds: int,
    threads: int | None,
    openvino: bool,
    npu: str | None,
    as_json: bool,
) -> None:
    """Time FILES on this CPU in interleaved rounds, or estimate them on an NPU.

    Compare medians and ratios. Nothing else should run on the machine meanwhile.
    """
    from runtime.errors import UserError

    if npu is not None and (reference or size or openvino or threads):
        raise UserError("--npu estimates files at their fixed size; leave other options out")
    if not files:
        raise UserError("no files to measure; name exported .tflite or .onnx files")
    if npu is not None:
        _print_npu(files, npu, as_json)
        return
    from benchmarks.devices.cpu import latency_table, measure_latency

    chosen = (*files, reference) if reference is not None and reference not in files else files
    # Files that restore tiles run in two passes; the latency of one pass would mislead.
    cut = [file for file in chosen if (entry := _entry(file)) is not None and entry.pooling]
    if cut:
        click.echo(f"left out, for they restore tiles: {', '.join(map(str, cut))}", err=True)
        chosen = tuple(file for file in chosen if file not in cut)
    report = measure_latency(
        [contender for file in chosen for contender in _contenders(file, openvino)],
        reference=str(reference) if reference is not None else None,
        rounds=rounds,
        threads=threads,
        size=size,
        progress=True,
    )
    click.echo(json.dumps(dataclasses.asdict(report)) if as_json else latency_table(report))


def _contenders(file: Path, openvino: bool) -> list[Contender]:
    from benchmarks.devices.cpu import Contender
    from runtime.formats import BY_SUFFIX

    entry = _entry(file)
    multadds = entry.multadds if entry else None
    found = [Contender(str(file), file, None, multadds)]
    kind = BY_SUFFIX.get(file.suffix)
    if openvino and kind is not None and "openvino" in kind.engines:
        found.append(Contender(str(file), file, "openvino", multadds))
    return found


def _entry(file: Path) -> Artifact | None:
    from runtime.manifest import read_manifest

    manifest = read_manifest(file.parent)
    return manifest.artifact(file.name) if manifest else None


def _print_npu(files: tuple[Path, ...], npu: str, as_json: bool) -> None:
    from benchmarks.devices.ethos_u import estimate, estimate_table

    estimates = [estimate(file, npu) for file in files]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in estimates]))
        return
    for one in estimates:
        click.echo(estimate_table(one))
