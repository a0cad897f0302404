from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import benchmarks.proof as proof
import runtime
from benchmarks.devices.device import Device, Execution, Subject, Takes
from benchmarks.proof import Difference, Row, difference_of, failures, prove
from benchmarks.report import proof_table
from runtime.errors import UserError
from runtime.session import FloatPicture

SIZE = (24, 32)


class Ours(Device):
    """Executes with the reference's engine, ``off`` levels too bright."""

    def __init__(self, name: str, off: float = 0.0, **takes: bool) -> None:
        self.name, self.title, self.off = name, name.title(), off
        self.takes = Takes({"tflite": ("float32",), "onnx": ("float32",)}, **takes)
        self.executed: list[str] = []

    def missing(self) -> str | None:
        return None

    def versions(self) -> Mapping[str, str]:
        return {"ours": "1"}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        self.executed.append(subject.path.name)
        with runtime.open(subject.path, threads=1) as session:
            outputs = tuple(session.run(one) + np.float32(self.off / 255) for one in pictures)
        return Execution("ours 1", outputs, self.versions(), {})


class Absent(Ours):
    def missing(self) -> str | None:
        return "needs absent: pip install absent"


class Refusing(Ours):
    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        raise UserError("takes no CONCATENATION")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, write_artifact, manifest_of) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    fixed = write_artifact(folder, "tflite", "float32", size=SIZE)
    manifest_of(fixed, write_artifact(folder, "onnx", "float32")).write(folder)
    return folder


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The process of its own is tested in test_devices.py."""

    def execute(device, subject, pictures, *, catalogue):
        return device.execute(subject, pictures)

    monkeypatch.setattr(proof, "execute_isolated", execute)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return


def test_every_file_is_compared_with_what_our_engine_makes_of_it(bundle):
    same, brighter = prove(bundle, [Ours("same", fixed_size=True), Ours("off", 2, fixed_size=True)])
    assert same.file == "tiny_x2_float32.tflite"
    assert same.difference == Difference(None, 0.0)
    # 2 levels off, where nothing is clamped; at most as far where white or black is.
    assert brighter.difference.levels == pytest.approx(2, abs=1e-3)
    assert brighter.difference.decibels >= -20 * np.log10(2 / 255) - 1e-3


def test_files_of_any_size_are_executed_too(bundle):
    rows = prove(bundle, [Ours("any")])
    assert {row.fixed for row in rows} == {True, False}
    assert all(row.outcome == "ran" for row in rows)


def test_what_is_missing_or_fails_does_not_stop_the_others(bundle):
    devices = [Absent("absent"), Refusing("refusing", fixed_size=True), Ours("ours")]
    rows = prove(bundle, devices)
    assert [row.outcome for row in rows] == ["not run", "failed", "ran", "ran"]
    assert failures(rows) == [
        "Absent: not run (needs absent: pip install absent)",
        "tiny_x2_float32.tflite on Refusing: takes no CONCATENATION",
    ]


def test_a_device_without_a_file_says_what_it_needs(bundle):
    device = Ours("int8")
    device.takes = Takes({"onnx": ("float32",)}, fixed_size=True)
    (row,) = prove(bundle, [device])
    assert row.outcome == "not taken"
    assert "--size" in row.reason
    assert failures([row]) == []


def test_known_results_are_not_executed_again(bundle):
    device = Ours("ours", fixed_size=True)
    first = prove(bundle, [device])
    assert prove(bundle, [device]) == first
    assert len(device.executed) == 1
    device.versions = lambda: {"ours": "2"}
    prove(bundle, [device])
    assert len(device.executed) == 2
    prove(bundle, [device], again=True)
    assert len(device.executed) == 3


def test_a_device_with_a_profile_names_it_where_a_file_of_another_fails(bundle):
    device = Refusing("picky")
    assert [row.reason for row in prove(bundle, [device])] == ["takes no CONCATENATION"] * 2
    device.profile = "litert-gpu"
    (reason, _) = [row.reason for row in prove(bundle, [device])]
    assert reason.endswith("; try a file that 'reslite export --profile litert-gpu' makes")


def test_failures_are_tried_again(bundle):
    device = Refusing("ours", fixed_size=True)
    assert prove(bundle, [device])[0].outcome == "failed"
    assert prove(bundle, [Ours("ours", fixed_size=True)])[0].outcome == "ran"


def test_a_folder_without_a_bundle_and_a_changed_file_are_refused(bundle, tmp_path):
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        prove(tmp_path, [Ours("ours")])
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    onnx = tmp_path / "tiny_x2_float32.onnx"
    onnx.write_bytes(onnx.read_bytes() + b"\0")
    with pytest.raises(UserError, match="SHA-256 differs"):
        prove(tmp_path, [Ours("ours")])
    onnx.unlink()
    with pytest.raises(UserError, match="is missing"):
        prove(tmp_path, [Ours("ours")])


def test_outputs_of_another_shape_or_without_numbers_are_failures():
    black = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(UserError, match="returns 2×4×3, expected 4×4×3"):
        difference_of([black[:2]], [black])
    with pytest.raises(UserError, match="NaN"):
        difference_of([black * np.float32(np.nan)], [black])


def test_the_difference_is_that_of_the_worst_picture():
    black = np.zeros((4, 4, 3), np.float32)
    found = difference_of([black + np.float32(0.001), black + np.float32(0.1)], [black, black])
    assert found.decibels == pytest.approx(20, abs=1e-3)
    assert found.levels == pytest.approx(25.5, abs=1e-3)


ROW = Row(
    model="carn-m ×4",
    file="a.tflite",
    format="tflite",
    precision="int8",
    fixed=True,
    sha256="0",
    device="gpu",
    title="GPU",
    evidence="executed",
    outcome="ran",
    runtime="GPU 2 (Vulkan)",
    difference=Difference(52.26, 7.0),
    fallbacks={"Resize": 2, "Split": 1},
    facts={"partitions": 3},
    settings="GPU=1",
    versions={"gpu": "2"},
    date="2026-12-01",
)


def test_the_table_shows_difference_fallbacks_settings_and_failures():
    wrong = replace(ROW, precision="float32", difference=Difference(20.0, 99.0), fallbacks={})
    failed = replace(ROW, title="NPU", device="npu", outcome="failed", reason="no Split | here")
    compiled = replace(ROW, title="HTP", evidence="compiled", difference=None, fallbacks={})
    missing = replace(ROW, title="TPU", outcome="not run", reason="needs tpu: pip install tpu")
    text = proof_table.as_markdown([ROW, wrong, failed, compiled, missing])
    lines = text.splitlines()
    assert "| TFLite, fixed size | float32 | int8 |" in lines
    assert "| GPU | **20.0 dB, 99** | 52.3 dB, 7, 3 operators elsewhere |" in lines
    assert not any("profile" in line for line in lines)
    other = proof_table.as_markdown([ROW, replace(ROW, profile="litert-gpu")]).splitlines()
    assert "| TFLite, fixed size | int8 |" in other
    assert "| TFLite, fixed size, profile `litert-gpu` | int8 |" in other
    assert "| NPU | – | **fails** |" in lines
    assert "| HTP | – | taken |" in lines
    assert any(
        line.startswith("| GPU | executed | GPU 2 (Vulkan) | GPU=1, partitions 3 | gpu 2 |")
        for line in lines
    )
    assert "- a.tflite on GPU: 20.0 dB, less than 50" in lines
    assert r"- a.tflite on NPU: no Split \| here" in lines
    assert "- TPU: not run (needs tpu: pip install tpu)" in lines
    assert "*compiled*: the vendor's compiler took the file; nothing was computed." in text


def test_a_line_names_the_kind_of_evidence():
    assert proof_table.as_line(ROW) == (
        "GPU: a.tflite: executed, 52.3 dB, 7, 3 operators elsewhere"
    )
