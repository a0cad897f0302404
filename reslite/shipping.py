"""``reslite ship``: every file of a network, proven, measured and reported.

Composes the other packages: export and parity, the table of scales, accuracy on real pictures,
latency in one interleaved run with the other networks, NPU estimates, the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

import runtime
from benchmarks.accuracy import (
    Scores,
    baseline,
    network_restorer,
    psnr_loss,
    score,
    session_restorer,
)
from benchmarks.blocks import contenders_of
from benchmarks.comparison import Plan, measure_latency
from benchmarks.devices.cpu import CPU
from benchmarks.devices.ethos_u import estimate
from benchmarks.latency import LatencyReport
from benchmarks.multadds import layers_of_module, total
from benchmarks.pairs import Pair, Pairs, pairs_in
from benchmarks.report.fixed_sizes import fixed_sizes_of
from benchmarks.report.report import Example, NpuRow, Report, points_of, rows_of, write_report
from benchmarks.snapshots import GATE_PICTURES, gate_pictures
from export.artifacts import check_writers
from export.bundle import bundle_of
from export.bundle_manifest import with_artifact
from export.compiled import check_compilers, compile_bundle
from export.headroom import Photographs
from export.memory import check_size, check_tiles
from export.scales import ScaleTable
from export.sources.source import Source, Trained
from export.variants import DEFAULT_VARIANTS, Variant, variants_of
from quantize import load_scales
from quantize.calibration import few_photographs
from quantize.simulator import int8_reference
from reslite.apps.languages import Language
from reslite.apps.writing import check_apps, write_app
from reslite.loading import cached_bundle
from reslite.scales import found_scales
from runtime.atomic import replacing
from runtime.formats import FORMATS, USUAL_FORMATS, Format
from runtime.manifest import HD, Manifest
from runtime.snapdragon import Snapdragon
from runtime.tiling import restore_tiled
from training.catalogue import Model, list_models

Announce = Callable[[str], None]

_LARGEST_PEER = 4  # times the network's MultAdds; larger networks would take most of the time
_SEEN = 1.0  # dB; a loss that a warning is worth
LATENCY_SIZE = (128, 128)
"""Small enough for a demo on two cores and large enough for arithmetic to outweigh overhead."""

_STARTS = 3
"""Process starts of the latency measurement; ``reslite bench`` takes more, and tells intervals."""

_TARGET_SIZES = ((128, 128),)
_NPU_SIZE = (48, 48)
_NPU = "ethos-u65-256"
_REFERENCE = Variant("tflite", "float32")
"""The file that the latencies of all files are compared with."""

_SHOWN = Variant("tflite", "int8")
"""The file that restores the report's pictures."""


@dataclass(frozen=True)
class Shipment:
    """The result of ``ship``.

    Attributes:
        manifest: The bundle, with all measured figures.
        report: The report's content.
        files: ``report.json``, ``report.html``, the restored picture, and the folders of apps.
    """

    manifest: Manifest
    report: Report
    files: tuple[Path, ...]


def ship_network(
    network: Trained,
    scale: int,
    out: Path,
    *,
    formats: Sequence[Format] = USUAL_FORMATS,
    data: Path | None = None,
    calibration: Path | None = None,
    tune: float | None = None,
    overwrite: bool = False,
    rounds: int = 4,
    threads: int | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    image_io: bool = False,
    targets: Sequence[Snapdragon] = (),
    latency_size: tuple[int, int] = LATENCY_SIZE,
    apps: Sequence[Language] = (),
    announce: Announce = lambda line: None,
) -> Shipment:
    """Find what ``ship`` needs, int8 scales and pictures, and ship a network at one scale.

    Args:
        network: The network.
        scale: One of its upscaling factors.
        out: Folder of the bundle and its report.
        formats: The formats, TFLite among them.
        data: Folder of pictures to score on; None for crops of scikit-image's pictures.
        calibration: Folder of pictures to find int8 scales on; None for the committed scales of a
            network of reslite's own, and scikit-image's pictures for any other.
        tune: Minutes of ``quantize.tuning``, if int8 scales are found; None for the default of
            ``quantize.tuning.limit_for``.
        overwrite: As in ``ship``, and so are the others; int8 is tuned again, too.
        rounds: Rounds of the latency measurement in each of its starts.
        threads: CPU threads of the latency measurement.
        sizes: As in ``ship``.
        image_io: As in ``ship``.
        targets: As in ``ship``; without sizes, files of 128 × 128 are made for them.
        latency_size: As in ``ship``.
        apps: As in ``ship``.
        announce: Called with a line of text at each step.

    Raises:
        UserError: If there are no scales, no pictures, or a file cannot be made.
    """
    check_compilers(targets)
    check_writers(formats)
    sizes = sizes or (_TARGET_SIZES if targets else ())
    # A network without a table of scales is refused before it is captured.
    foreign = not isinstance(network, Model)
    table = None if calibration or foreign else load_scales(network.name, scale)
    source = Source.of(network, scale)
    for size in (latency_size, *sizes):
        check_size(source.graph, size)
    for size in sizes:
        check_tiles(source.graph, size)
    check_apps(source.graph, apps, sizes)
    if foreign:
        announce(f"{network.path.name}: its licence goes with all files made of it")
    if table is None:
        table = found_scales(source, calibration, tune, announce, again=overwrite)
    return ship(
        source,
        out,
        table=table,
        pairs=pairs_in(data, network.task, scale) if data else gate_pictures(network.task, scale),
        pictures=data.name if data else GATE_PICTURES,
        formats=formats,
        photographs=partial(few_photographs, network.task, scale, calibration),
        overwrite=overwrite,
        rounds=rounds,
        threads=threads,
        sizes=sizes,
        image_io=image_io,
        targets=targets,
        latency_size=latency_size,
        apps=apps,
        announce=announce,
    )


def ship(
    source: Source,
    out: Path,
    *,
    table: ScaleTable,
    pairs: Pairs,
    pictures: str,
    formats: Sequence[Format] = USUAL_FORMATS,
    photographs: Photographs = tuple,
    overwrite: bool = False,
    rounds: int = 4,
    threads: int | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    image_io: bool = False,
    targets: Sequence[Snapdragon] = (),
    latency_size: tuple[int, int] = LATENCY_SIZE,
    apps: Sequence[Language] = (),
    announce: Announce = lambda line: None,
) -> Shipment:
    """Export, prove, measure and report a network at one scale.

    Args:
        source: The network.
        out: Folder of the bundle and its report.
        table: Scales for the int8 files.
        pairs: The pictures to score on.
        pictures: Name of the pictures in the report.
        formats: The formats, TFLite among them.
        photographs: As for ``bundle_of``.
        overwrite: Export again even files that exist and are valid.
        rounds: Rounds of the latency measurement in each of its starts.
        threads: CPU threads of the latency measurement.
        sizes: Heights and widths to fix the input to. Each adds a file beside every file that
            takes any size; it is proven, and neither scored nor timed, for it is the same network.
        image_io: Whether to write Core ML packages that take and return images, too.
        targets: Chips that the ONNX files of fixed size are compiled for.
        latency_size: Height and width of the inputs of the latency measurement.
        apps: Languages to write a sample app in, beside the bundle.
        announce: Called with a line of text at each step.
    """
    model, scale = source.model, source.scale
    usual = variants_of(formats, images=image_io)
    fixed_sized = variants_of(formats, sizes, image_io) if sizes else ()
    bundle = bundle_of(
        source,
        (*usual, *fixed_sized),
        out,
        table,
        int8_reference,
        overwrite,
        announce,
        photographs,
    )
    bundle = compile_bundle(bundle, out, targets, announce)
    manifest = _shipped(bundle, usual)
    announce(f"scoring on {len(pairs)} pictures")
    reference = score(network_restorer(source.module, source.graph.sides), pairs)
    manifest = _scored(manifest, out, pairs, reference)
    tell_losses(manifest, announce)
    others = [
        (Source.of(other, scale), load_scales(other.name, scale)) for other in peers_of(source)
    ]
    peers = [_peer(other, scales, announce) for other, scales in others]
    announce("measuring latency")
    latency = _latency([(out, manifest), *peers], rounds, threads, latency_size)
    manifest = _timed(manifest, latency)
    for artifact in manifest.artifacts:
        bundle = with_artifact(bundle, artifact)
    bundle.write(out)
    report = Report(
        model=model.name,
        task=model.task,
        scale=scale,
        pictures=pictures,
        source=reference,
        baseline=score(baseline(model.task, scale), pairs),
        rows=rows_of(manifest, latency),
        latency=latency,
        points=tuple(
            point
            for one in (manifest, *(peer for _, peer in peers))
            for point in points_of(one, latency)
        ),
        npu=_npu([(source, table), *others], announce),
        examples=_examples(manifest, out, pairs),
        fixed_sizes=fixed_sizes_of(_shipped(bundle, fixed_sized)),
    )
    picture = out / "restored.png"
    with replacing(picture) as temporary:
        Image.fromarray(report.examples[0].restored).save(temporary)
    files = (*write_report(report, out), picture)
    golden = next(iter(pairs)).low
    written = [
        write_app(one, source, bundle, out, golden, sizes, overwrite, announce) for one in apps
    ]
    return Shipment(bundle, report, (*files, *written))


def peers_of(source: Source) -> list[Model]:
    """Return the other shipped networks of a scale with at most four times the MultAdds."""
    scale, most = source.scale, _LARGEST_PEER * source.graph.multadds(*HD)

    def multadds(one: Model) -> int:
        return total(layers_of_module(one.at_scale(scale), scale)).multadds

    others = [one for one in list_models() if one.name != source.model.name and scale in one.scales]
    return [one for one in others if multadds(one) <= most]


def _peer(source: Source, table: ScaleTable, announce: Announce) -> tuple[Path, Manifest]:
    """Export another network in the formats that run here, to compare latencies with."""
    announce(f"exporting {source.model.name} to compare with")
    variants = [
        one for one in DEFAULT_VARIANTS if FORMATS[one.format].runs_here() and not one.float_io
    ]
    folder = cached_bundle(source.model, source.scale)
    return folder, bundle_of(source, variants, folder, table, int8_reference)


def _shipped(bundle: Manifest, variants: Sequence[Variant]) -> Manifest:
    """Return these files of a bundle, whose folder may hold other exports, too."""
    files = {one.file_name(bundle.model, bundle.scale) for one in variants}
    files |= {one.tiled_by for one in bundle.artifacts if one.file in files and one.tiled_by}
    chosen = tuple(one for one in bundle.artifacts if one.file in files)
    return dataclasses.replace(bundle, artifacts=chosen)


def _scored(manifest: Manifest, folder: Path, pairs: Pairs, reference: Scores) -> Manifest:
    """Return the manifest with the scores of every file that runs here."""
    artifacts = []
    for artifact in manifest.artifacts:
        measured = artifact.measured
        if measured.max_abs_diff is not None and artifact.pooling is None:
            with runtime.open(folder / artifact.file) as session:
                scores = score(session_restorer(session), pairs)
            measured = dataclasses.replace(
                measured,
                psnr=scores.psnr,
                ssim=scores.ssim,
                psnr_loss=psnr_loss(reference, scores),
            )
        artifacts.append(dataclasses.replace(artifact, measured=measured))
    return dataclasses.replace(manifest, artifacts=tuple(artifacts))


def tell_losses(manifest: Manifest, announce: Announce) -> None:
    """Name the files whose loss is seen at once."""
    for artifact in manifest.artifacts:
        loss = artifact.measured.psnr_loss
        if loss is not None and loss > _SEEN:
            announce(
                f"{artifact.file} loses {loss:.1f} dB: look at its pictures before you ship it; "
                "int8 does not suit every network"
            )


def _latency(
    bundles: Sequence[tuple[Path, Manifest]],
    rounds: int,
    threads: int | None,
    size: tuple[int, int],
) -> LatencyReport:
    """Time the files of all bundles in one interleaved run; the first bundle has the reference."""
    (_, first), *_ = bundles
    return measure_latency(
        [one for folder, bundle in bundles for one in contenders_of(folder, bundle, CPU())],
        reference=_REFERENCE.file_name(first.model, first.scale),
        plan=Plan(_STARTS, rounds, warmup=1),
        threads=threads,
        size=size,
        progress=True,
    )


def _timed(manifest: Manifest, latency: LatencyReport) -> Manifest:
    """Return the manifest with the latency of every file that was timed."""
    artifacts = []
    for artifact in manifest.artifacts:
        row = latency.row(artifact.file)
        measured = artifact.measured
        if row is not None and row.milliseconds is not None:
            measured = dataclasses.replace(
                measured,
                latency_median_ms=row.milliseconds.median,
                latency_iqr_ms=row.milliseconds.iqr,
            )
        artifacts.append(dataclasses.replace(artifact, measured=measured))
    return dataclasses.replace(manifest, artifacts=tuple(artifacts))


def _npu(sources: Sequence[tuple[Source, ScaleTable]], announce: Announce) -> tuple[NpuRow, ...]:
    """Estimate the int8 files of networks on the NPU, if Vela is installed."""
    if find_spec("ethosu") is None:
        announce("no NPU estimate: pip install 'reslite[npu]' adds it")
        return ()
    announce("estimating on an NPU with Arm's compiler")
    variant = Variant("tflite", "int8", size=_NPU_SIZE, profile="ethos-u")
    rows = []
    for source, table in sources:
        folder = cached_bundle(source.model, source.scale)
        bundle_of(source, [variant], folder, table, int8_reference)
        path = folder / variant.file_name(source.model.name, source.scale)
        rows.append(NpuRow(source.model.name, estimate(path, _NPU)))
    return tuple(rows)


def _examples(manifest: Manifest, folder: Path, pairs: Pairs) -> tuple[Example, ...]:
    """Restore the first pictures with the file ``_SHOWN``, as examples for the report."""
    name = _SHOWN.file_name(manifest.model, manifest.scale)
    chosen: list[Pair] = [pair for _, pair in zip(range(3), pairs, strict=False)]
    examples = []
    with runtime.open(folder / name) as session:
        for pair in chosen:
            before = pair.task.baseline(pair.low, pair.scale)
            restored = restore_tiled(session, pair.low)
            examples.append(
                Example(
                    name=pair.name,
                    before=before,
                    restored=restored,
                    file=name,
                    original=pair.high,
                    psnr_before=pair.task.scoring.psnr(before, pair.high, pair.scale),
                    psnr_restored=pair.task.scoring.psnr(restored, pair.high, pair.scale),
                )
            )
    return tuple(examples)
