"""The report of a bundle: ``report.json`` for machines and a self-contained ``report.html``.

Both are pure functions of the dataclasses below, which hold measured figures only: equal figures
give equal bytes. A figure that was not measured is null, with a reason in ``not_run``.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from benchmarks.accuracy import Scores, finite
from benchmarks.devices.ethos_u import NpuEstimate
from benchmarks.latency import DEFAULT_DEVICE, Latency, LatencyReport, Spread
from benchmarks.report.fixed_sizes import FixedSize
from benchmarks.report.scatter import Point, scatter_svg
from runtime.atomic import replacing
from runtime.formats import FORMATS, Format, Precision
from runtime.manifest import HD, Artifact, HalfPrecision, Manifest
from training.data.pictures import Picture
from training.tasks import Task

_DEVICE_TITLES = {"openvino": "OpenVINO"}
RESTORES_TILES = "restores the tiles of large pictures"
_NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """One artifact of the bundle.

    Attributes:
        file: File name.
        format: ``onnx``, ``tflite`` or ``coreml``.
        precision: ``float32``, ``float16`` or ``int8``.
        bytes: Size.
        multadds: MultAdds of its network at a 1280 × 720 output.
        max_abs_diff: Largest difference from the source network, for outputs in [0, 1].
        psnr: Mean PSNR in dB, by the scoring of the task.
        ssim: Mean SSIM.
        psnr_loss: Loss in dB against the source network on the same pictures.
        latency: Milliseconds of one inference.
        not_run: Reason for missing figures.
        float16: What half arithmetic makes of a float16 file's network.
    """

    file: str
    format: Format
    precision: Precision
    bytes: int
    multadds: int
    max_abs_diff: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    psnr_loss: float | None = None
    latency: Spread | None = None
    not_run: str | None = None
    float16: HalfPrecision | None = None

    @classmethod
    def of(cls, artifact: Artifact, latency: Latency | None) -> Row:
        """Join an artifact's entry in the manifest and its latency."""
        measured = artifact.measured
        row = cls(
            file=artifact.file,
            format=artifact.format,
            precision=artifact.precision,
            bytes=artifact.bytes,
            multadds=artifact.multadds,
            max_abs_diff=measured.max_abs_diff,
            psnr=measured.psnr,
            ssim=measured.ssim,
            psnr_loss=measured.psnr_loss,
            latency=latency.milliseconds if latency else None,
            float16=artifact.float16,
        )
        complete = None not in (row.max_abs_diff, row.psnr, row.ssim, row.latency)
        if complete:
            return row
        reason = latency.not_run if latency else None
        if artifact.pooling is not None:
            reason = RESTORES_TILES
        reason = reason or FORMATS[artifact.format].not_run or _NOT_MEASURED
        return dataclasses.replace(row, not_run=reason)


@dataclass(frozen=True)
class Example:
    """An example picture before and after restoration; all H × W × 3 uint8 of one size.

    Attributes:
        name: Caption.
        before: The result of the task's baseline, without a network.
        restored: The result of an artifact.
        file: File name of the artifact.
        original: The original, or None.
        psnr_before: PSNR of ``before`` in dB.
        psnr_restored: PSNR of ``restored`` in dB.
    """

    name: str
    before: Picture
    restored: Picture
    file: str
    original: Picture | None = None
    psnr_before: float | None = None
    psnr_restored: float | None = None


@dataclass(frozen=True)
class NpuRow:
    """An estimate and the name of its model."""

    model: str
    estimate: NpuEstimate


@dataclass(frozen=True)
class Report:
    """Everything the report shows.

    Attributes:
        model: Model name.
        task: The model's task.
        scale: Upscaling factor.
        pictures: Name of the pictures the scores are taken on, for example ``Set5``.
        source: Scores of the source network in torch.
        baseline: Scores of the task's baseline, without a network, on the same pictures.
        rows: The artifacts that take any size.
        latency: The interleaved run of this bundle and of bundles to compare with; None if nothing
            was timed.
        points: Latencies for the chart, of this model and others (see ``points_of``).
        npu: Estimates, of this model and others.
        examples: Pictures to look at.
        fixed_sizes: The artifacts of fixed size.
    """

    model: str
    task: Task
    scale: int
    pictures: str
    source: Scores
    baseline: Scores
    rows: tuple[Row, ...]
    latency: LatencyReport | None
    points: tuple[Point, ...] = ()
    npu: tuple[NpuRow, ...] = ()
    examples: tuple[Example, ...] = ()
    fixed_sizes: tuple[FixedSize, ...] = ()


def rows_of(manifest: Manifest, latency: LatencyReport | None) -> tuple[Row, ...]:
    """Return the rows of a bundle from its manifest and an interleaved run."""
    return tuple(
        Row.of(artifact, latency.row(artifact.file) if latency else None)
        for artifact in manifest.artifacts
    )


def points_of(manifest: Manifest, latency: LatencyReport) -> tuple[Point, ...]:
    """Return the chart's points of a bundle: timed files, without int8 files with float I/O.

    A device that is not the default becomes a separate series.
    """
    points = []
    for artifact in manifest.artifacts:
        if artifact.float_io:
            continue
        usual = (DEFAULT_DEVICE, FORMATS[artifact.format].title)
        for device, title in (usual, *_DEVICE_TITLES.items()):
            row = latency.row(artifact.file, device)
            if row is None or row.milliseconds is None or row.size is None:
                continue
            pixels = row.size[0] * row.size[1] * manifest.scale**2
            points.append(
                Point(
                    model=manifest.model,
                    series=title,
                    kind=artifact.precision,
                    multadds=artifact.multadds * pixels / (HD[0] * HD[1]),
                    milliseconds=row.milliseconds.median,
                )
            )
    return tuple(points)


def to_json(report: Report) -> dict[str, Any]:
    """Return the content of ``report.json``."""
    latency = report.latency
    return {
        "model": report.model,
        "scale": report.scale,
        "pictures": {"name": report.pictures, "count": report.source.pictures},
        "source": _scores(report.source),
        "baseline": {"name": report.task.baseline_name, **_scores(report.baseline)},
        "kinds": {
            kind: {"before": finite(before), "after": finite(after)}
            for kind, (before, after) in report.source.by_kind().items()
        },
        "artifacts": [_artifact(row) for row in report.rows],
        "fixed_sizes": [dataclasses.asdict(one) for one in report.fixed_sizes],
        "latency": None if latency is None else _latency(latency),
        "environment": None if latency is None else dataclasses.asdict(latency.environment),
        "npu": [_npu(row) for row in report.npu],
    }


def to_html(report: Report) -> str:
    """Return ``report.html``: one self-contained page, with a light and a dark theme."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["count"] = _count
    environment.globals["before"] = report.task.baseline_name
    scoring = report.task.scoring
    environment.globals["quality"] = (scoring.psnr_title, scoring.ssim_title)
    npu_points = tuple(
        Point(
            model=row.model,
            series=row.estimate.target.accelerator.replace("ethos-u", "U"),
            kind="npu",
            multadds=row.estimate.multadds,
            milliseconds=row.estimate.milliseconds,
        )
        for row in report.npu
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        groups=[
            (kind.title, [r for r in report.rows if r.format == name])
            for name, kind in FORMATS.items()
        ],
        highlights=_highlights(report),
        halves=[row for row in report.rows if row.float16 is not None],
        kinds=report.source.by_kind(),
        slowest=max((r.latency.median for r in report.rows if r.latency), default=1.0),
        cpu_chart=scatter_svg("cpu", report.points) if report.points else None,
        npu_chart=scatter_svg("npu", npu_points) if npu_points else None,
    )


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``folder`` and return their paths."""
    content = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    written = []
    for name, text in (("report.json", content), ("report.html", to_html(report))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written[0], written[1]


@dataclass(frozen=True)
class _Highlight:
    """A figure at the head of the page."""

    label: str
    value: str
    unit: str
    note: str


def _highlights(report: Report) -> list[_Highlight]:
    found = [
        _Highlight(
            f"Accuracy on {report.pictures}",
            f"{report.source.psnr:.2f}",
            f"dB {report.task.scoring.psnr_title}",
            f"{report.source.psnr - report.baseline.psnr:+.2f} dB to {report.task.baseline_name}",
        )
    ]
    losses = [row.psnr_loss for row in report.rows if row.psnr_loss is not None]
    integers = [r.psnr_loss for r in report.rows if r.precision == "int8" and r.psnr_loss]
    if integers:
        note = f"the worst of {len(integers)} int8 files"
        found.append(_Highlight("int8 costs", f"{max(integers):.3f}", "dB", note))
    elif losses:
        note = f"the worst of {len(losses)} files"
        found.append(_Highlight("Conversion costs", f"{max(losses):.3f}", "dB", note))
    smallest = min(report.rows, key=lambda row: row.bytes, default=None)
    if smallest is not None:
        size = f"{smallest.bytes / 1e6:.2f}"
        found.append(_Highlight("Smallest file", size, "MB", smallest.file))
    timed = [row for row in report.rows if row.latency is not None]
    if timed:
        fastest = min(timed, key=lambda row: row.latency.median if row.latency else math.inf)
        assert fastest.latency is not None
        value = f"{fastest.latency.median:.1f}"
        found.append(_Highlight("Fastest on this CPU", value, "ms", fastest.file))
    return found


def _artifact(row: Row) -> dict[str, Any]:
    spread = row.latency
    content: dict[str, Any] = {
        "file": row.file,
        "format": row.format,
        "precision": row.precision,
        "bytes": row.bytes,
        "max_abs_diff": finite(row.max_abs_diff),
        "psnr": finite(row.psnr),
        "ssim": finite(row.ssim),
        "psnr_loss": finite(row.psnr_loss),
        "latency_ms": None if spread is None else {"median": spread.median, "iqr": spread.iqr},
        "multadds": row.multadds,
    }
    if row.float16 is not None:
        content["float16"] = {"evidence": "executed", **dataclasses.asdict(row.float16)}
    return content if row.not_run is None else {**content, "not_run": row.not_run}


def _scores(scores: Scores) -> dict[str, Any]:
    rows = [{"name": r.name, "psnr": finite(r.psnr), "ssim": finite(r.ssim)} for r in scores.rows]
    return {
        "psnr": finite(scores.psnr),
        "ssim": finite(scores.ssim),
        "pictures": rows,
    }


def _latency(latency: LatencyReport) -> dict[str, Any]:
    content = dataclasses.asdict(latency)
    del content["environment"]
    return content


def _npu(row: NpuRow) -> dict[str, Any]:
    found = row.estimate
    return {
        "model": row.model,
        **dataclasses.asdict(found),
        "npu_operators": found.npu_operators,
        "cpu_operators": found.cpu_operators,
    }


def _data_uri(picture: Picture) -> str:
    """Return a picture as a lossless WebP within a URI."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", lossless=True, quality=80, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _count(value: float) -> str:
    """Return a large number with an SI prefix: 32.5 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.0f}"
