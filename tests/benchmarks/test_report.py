"""report.json to the letter of its contract, report.html complete and in need of nothing else."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import PictureScore, Scores
from benchmarks.devices.ethos_u import LABEL, TARGETS, NpuEstimate, NpuLayer
from benchmarks.environment import Environment
from benchmarks.latency import Latency, LatencyReport, Spread
from benchmarks.report.fixed_sizes import fixed_sizes_of
from benchmarks.report.report import (
    Example,
    NpuRow,
    Report,
    Row,
    points_of,
    rows_of,
    to_html,
    to_json,
    write_report,
)
from benchmarks.report.scatter import Point
from runtime.formats import Format, Precision
from runtime.manifest import Artifact, HalfPrecision, Manifest, Measured, TensorInfo
from training.tasks import SUPER_RESOLUTION

MULTADDS = 32_480_870_400
TENSOR = TensorInfo("image", "NHWC", "float32", (1, None, None, 3))
ENVIRONMENT = Environment(
    cpu="Some <CPU>",
    simd=("avx512_vnni",),
    cores=2,
    available=2,
    memory_bytes=8 << 30,
    system="Linux 6.1 x86_64",
    python="3.11.7",
    versions={"onnxruntime": "1.31.1"},
    load_average=0.1,
    other_load=0.02,
)


def _artifact(format: Format, precision: Precision, measured: Measured) -> Artifact:
    suffix = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}[format]
    return Artifact(
        file=f"carn_m_x4_{precision}.{suffix}",
        format=format,
        precision=precision,
        sha256="",
        bytes=345_678,
        input=TENSOR,
        output=TENSOR,
        profile="",
        rewrites=(),
        multadds=MULTADDS,
        operators={},
        measured=measured,
    )


MEASURED = Measured(max_abs_diff=0.0271, psnr=30.597, ssim=0.8662, psnr_loss=0.043)
MANIFEST = Manifest(
    model="carn-m",
    scale=4,
    halo=20,
    weights_sha256="",
    training={},
    tools={},
    artifacts=(
        _artifact("tflite", "int8", MEASURED),
        _artifact("onnx", "int8", MEASURED),
        _artifact("coreml", "int8", Measured()),
    ),
)


def _timed(
    name: str,
    median: float,
    size: tuple[int, int] = (180, 320),
    device: str = "cpu",
) -> Latency:
    return Latency(
        file=name,
        device=device,
        runtime="LiteRT 2.3.0",
        size=size,
        milliseconds=Spread(median, median - 1, median + 2),
        samples_ms=(median,),
        multadds_per_second=1e9,
        peak_memory_bytes=80_000_000,
    )


LATENCY = LatencyReport(
    environment=ENVIRONMENT,
    threads=2,
    starts=3,
    rounds=20,
    warmup=3,
    reference=None,
    rows=(
        _timed("carn_m_x4_int8.tflite", 95.5),
        _timed("carn_m_x4_int8.onnx", 300.0),
        _timed("carn_m_x4_int8.onnx", 80.0, device="openvino"),
        Latency("carn_m_x4_int8.mlpackage", not_run="not run (needs macOS)"),
    ),
)
SCORES = Scores(30.64, 0.8671, (PictureScore("baby.png", 30.64, 0.8671),))
ESTIMATE = NpuEstimate(
    file="carn_m_x4_int8.tflite",
    target=TARGETS["ethos-u65-256"],
    size=(48, 48),
    milliseconds=13.1,
    cycles=13_100_000,
    clock_hz=1e9,
    multadds=1_300_000_000,
    sram_bytes=300_000,
    layers=(
        NpuLayer("Conv2D", "conv", True, 13_100_000, 1_300_000_000, {"Sram": 5, "Dram": 6}),
        NpuLayer("DepthToSpace", "shuffle", False, 0, 0, {}),
    ),
    compiler="Vela 5.2.0",
)


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def report() -> Report:
    """A report with one of everything."""
    return Report(
        model="carn-m",
        task=SUPER_RESOLUTION,
        scale=4,
        pictures="Set5",
        source=SCORES,
        baseline=dataclasses.replace(SCORES, psnr=28.42),
        rows=rows_of(MANIFEST, LATENCY),
        latency=LATENCY,
        points=(*points_of(MANIFEST, LATENCY), Point("carn", "TFLite", "int8", 90.9e9, 149.0)),
        npu=(NpuRow("carn-m", ESTIMATE),),
        examples=(
            Example("bird", _picture(0), _picture(1), "carn_m_x4_int8.tflite", _picture(2)),
            Example("<baby>", _picture(3), _picture(4), "carn_m_x4_int8.tflite"),
        ),
    )


def test_json_has_the_promised_artifacts(report: Report) -> None:
    content = to_json(report)

    assert content["artifacts"][0] == {
        "file": "carn_m_x4_int8.tflite",
        "format": "tflite",
        "precision": "int8",
        "bytes": 345_678,
        "max_abs_diff": 0.0271,
        "psnr": 30.597,
        "ssim": 0.8662,
        "psnr_loss": 0.043,
        "latency_ms": {"median": 95.5, "iqr": 3.0},
        "multadds": MULTADDS,
    }


def test_json_gives_a_reason_for_what_was_not_run(report: Report) -> None:
    package = to_json(report)["artifacts"][2]

    assert package["not_run"] == "not run (needs macOS)"
    unknown = {"max_abs_diff", "psnr", "ssim", "psnr_loss", "latency_ms"}
    assert {key for key, value in package.items() if value is None} == unknown
    assert package["multadds"] == MULTADDS


def test_half_arithmetic_is_shown_as_executed_and_not_on_a_device(report: Report) -> None:
    half = HalfPrecision(40_000.0, 1.6, "body.3", 46.4, 66.2, 11)
    entry = dataclasses.replace(_artifact("tflite", "float16", Measured()), float16=half)
    manifest = dataclasses.replace(MANIFEST, artifacts=(*MANIFEST.artifacts, entry))
    shown = dataclasses.replace(report, rows=rows_of(manifest, LATENCY))

    (found,) = [one for one in to_json(shown)["artifacts"] if "float16" in one]
    assert found["float16"] == {"evidence": "executed", **dataclasses.asdict(half)}
    page = to_html(shown)
    assert "executed in half arithmetic, on no device" in page
    assert "worst of 11 pictures" in page
    for figure in ("40 k", ">1.6</span>", "body.3", ">46.4</span>", "66.2 <small>dB"):
        assert figure in page, figure
    assert "half arithmetic" not in to_html(report)


def test_fixed_sizes_are_a_line_each(report: Report) -> None:
    entries = [
        dataclasses.replace(
            _artifact("tflite", precision, Measured(max_abs_diff=difference)),
            file=f"a{number}",
            input=TensorInfo("image", "NHWC", "float32", (1, *size, 3)),
        )
        for number, (precision, difference, size) in enumerate(
            [
                ("int8", 0.031, (64, 48)),
                ("int8", 0.024, (64, 48)),
                ("float32", 1e-6, (64, 48)),
                ("float32", None, (9, 9)),
            ]
        )
    ]
    found = fixed_sizes_of(dataclasses.replace(MANIFEST, artifacts=(*MANIFEST.artifacts, *entries)))
    assert [(one.title, one.files) for one in found] == [
        ("9x9", ("a3",)),
        ("64x48", ("a0", "a1", "a2")),
    ]
    assert found[1].max_abs_diff == {"int8": 0.031, "float32": 1e-6}

    shown = dataclasses.replace(report, fixed_sizes=found)
    assert to_json(shown)["fixed_sizes"][1]["size"] == (64, 48)
    assert "<td>64x48</td><td>3</td>" in to_html(shown)
    assert f"{len(report.rows) + 4} files from one set" in to_html(shown)
    assert "Fixed sizes" not in to_html(report)


def test_json_holds_environment_and_labelled_estimates(report: Report) -> None:
    content = to_json(report)

    assert content["environment"]["cpu"] == "Some <CPU>"
    assert (content["latency"]["threads"], content["latency"]["rounds"]) == (2, 20)
    (npu,) = content["npu"]
    assert npu["label"] == LABEL
    assert npu["target"]["memory"] == "Dedicated_Sram_384KB"
    assert npu["cpu_operators"] == {"DepthToSpace": 1}
    assert content["source"]["psnr"] == 30.64
    assert content["pictures"] == {"name": "Set5", "count": 1}


@pytest.mark.parametrize(
    ("format", "latency", "reason"),
    [
        ("tflite", None, "not measured"),
        ("coreml", None, "not run (needs macOS)"),
        ("coreml", Latency("x", not_run="not run (needs macOS)"), "not run (needs macOS)"),
    ],
)
def test_missing_figures_have_a_reason(
    format: Format, latency: Latency | None, reason: str
) -> None:
    assert Row.of(_artifact(format, "int8", MEASURED), latency).not_run == reason


def test_measured_figures_need_no_reason() -> None:
    assert Row.of(MANIFEST.artifacts[0], LATENCY.rows[0]).not_run is None


def test_points_cover_runtimes_and_scale_with_the_size() -> None:
    small = dataclasses.replace(LATENCY, rows=(_timed("carn_m_x4_int8.tflite", 9.0, (90, 160)),))

    assert [(p.series, p.milliseconds) for p in points_of(MANIFEST, LATENCY)] == [
        ("TFLite", 95.5),
        ("ONNX", 300.0),
        ("OpenVINO", 80.0),
    ]
    (point,) = points_of(MANIFEST, small)
    assert point.multadds == MULTADDS / 4


def test_files_with_float_io_have_no_point_and_names_decide_nothing() -> None:
    usual = dataclasses.replace(MANIFEST.artifacts[0], file="float_io_x4_int8.tflite")
    other = dataclasses.replace(MANIFEST.artifacts[0], file="other.tflite", float_io=True)
    manifest = dataclasses.replace(MANIFEST, artifacts=(usual, other))
    rows = (_timed(usual.file, 9.0), _timed(other.file, 8.0))

    points = points_of(manifest, dataclasses.replace(LATENCY, rows=rows))

    assert [point.milliseconds for point in points] == [9.0]


class _Reader(HTMLParser):
    """Collects tags and text, and fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def test_page_shows_everything(report: Report) -> None:
    text = " ".join(_read(to_html(report)).text.split())

    for expected in (
        "carn-m ×4",
        *("30.64", "+2.22 dB to bicubic", "0.043"),
        *("carn_m_x4_int8.mlpackage", "not run (needs macOS)"),
        *("95.5 ± 1.5 ms", "32.5 G", "2.7e-02"),
        *(LABEL, "Ethos_U65_Client_Server · Dedicated_Sram_384KB", "DepthToSpace"),
        *("Some <CPU>", "avx512_vnni", "onnxruntime 1.31.1", "<baby>"),
    ):
        assert expected in text, expected


def test_page_needs_nothing_else(report: Report) -> None:
    page = _read(to_html(report))

    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object"}]
    references = [
        value
        for _, attributes in page.tags
        for key in ("src", "href", "xlink:href", "data", "srcset")
        if (value := attributes.get(key))
    ]
    assert references
    assert all(value.startswith(("data:image/webp;base64,", "#")) for value in references)
    assert "@import" not in to_html(report)
    assert not re.search(r"url\((?!#)", to_html(report))


def test_page_ids_are_unique(report: Report) -> None:
    ids = [attributes["id"] for _, attributes in _read(to_html(report)).tags if "id" in attributes]

    assert len(ids) == len(set(ids))


def test_pictures_are_lossless(report: Report) -> None:
    images = [attributes for tag, attributes in _read(to_html(report)).tags if tag == "img"]

    assert len(images) == 5  # Three of the first example, two of the second.
    assert all(image["alt"] for image in images)
    data = (images[0]["src"] or "").partition("base64,")[2]
    decoded = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(decoded, report.examples[0].restored)


def test_equal_reports_give_equal_bytes(report: Report) -> None:
    assert to_html(report) == to_html(dataclasses.replace(report))


def test_busy_machine_is_shown(report: Report) -> None:
    busy = dataclasses.replace(ENVIRONMENT, other_load=0.5)
    latency = dataclasses.replace(LATENCY, environment=busy)

    assert "not to be trusted" in to_html(dataclasses.replace(report, latency=latency))
    assert "not to be trusted" not in to_html(report)


def test_report_of_little_is_a_report_too(report: Report) -> None:
    bare = dataclasses.replace(
        report, rows=rows_of(MANIFEST, None), latency=None, points=(), npu=(), examples=()
    )

    page = _read(to_html(bare))

    assert "not measured" in page.text
    assert not [tag for tag, _ in page.tags if tag in {"svg", "img"}]
    assert to_json(bare)["latency"] is None
    assert to_json(bare)["artifacts"][0]["latency_ms"] is None


def test_float_files_have_no_int8_highlight(report: Report) -> None:
    rows = tuple(dataclasses.replace(row, precision="float32") for row in report.rows)

    assert "Conversion costs" in to_html(dataclasses.replace(report, rows=rows))


def test_files_are_written_and_perfect_scores_are_null(report: Report, tmp_path: Path) -> None:
    perfect = dataclasses.replace(report.rows[0], psnr=float("inf"))

    paths = write_report(dataclasses.replace(report, rows=(perfect,)), tmp_path)

    assert paths == (tmp_path / "report.json", tmp_path / "report.html")
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    assert content["artifacts"][0]["psnr"] is None
    assert paths[1].read_text(encoding="utf-8").startswith("<!doctype html>")
