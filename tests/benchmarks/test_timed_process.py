"""Real processes, timed on this machine's CPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.blocks import Contender
from benchmarks.comparison import Plan, measure_latency
from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.cpu import CPU
from benchmarks.devices.device import Subject, TimedDevice, Timing
from benchmarks.devices.timed_process import TimedProcess
from runtime.errors import UserError
from runtime.manifest import Artifact, Manifest

_TIMING = Timing((8, 8), 1, 0)


@pytest.mark.slow
def test_real_processes(write_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    files = [
        write_artifact(tmp_path, "onnx", "float32"),
        write_artifact(tmp_path, "tflite", "float32", size=(16, 16)),
    ]
    contenders = [
        Contender(tmp_path / one.file, CPU(), one, "tiny", one.file, one.sha256) for one in files
    ]

    report = measure_latency(
        contenders, plan=Plan(2, 3, 1), threads=1, size=(24, 32), reference=files[0].file
    )

    onnx, tflite = report.rows
    assert onnx.size == (24, 32)
    assert tflite.size == (16, 16)  # Its own: it takes no other.
    assert tflite.speedup is None  # Another input is other work.
    for row in report.rows:
        assert len(row.samples_ms) == 6
        assert row.milliseconds is not None
        assert row.milliseconds.median == pytest.approx(np.median(row.samples_ms))
        assert row.peak_memory_bytes is not None
        # A Python process with a runtime, without torch: this one is larger.
        assert 10e6 < row.peak_memory_bytes < 250e6


def test_process_that_dies_is_told(write_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    path = tmp_path / write_artifact(tmp_path, "onnx", "float32").file

    with (
        pytest.raises(UserError, match="onnx: its process ended with code -9"),
        CPU().opened(path, _TIMING) as timed,
    ):
        assert isinstance(timed, TimedProcess)
        os.kill(timed._process.pid, signal.SIGKILL)
        timed._process.wait()
        timed.time_one()


def test_folder_named_benchmarks_does_not_get_in_the_way(
    write_artifact: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_artifact(tmp_path, "onnx", "float32").file
    (tmp_path / "benchmarks" / "devices").mkdir(parents=True)
    for name in ("__init__", "timing_worker"):
        lines = "raise SystemExit('the wrong one')"
        (tmp_path / "benchmarks" / "devices" / f"{name}.py").write_text(lines)
    monkeypatch.chdir(tmp_path)

    with CPU().opened(Path(file), _TIMING) as timed:
        assert timed.time_one() > 0


def test_openvino_times_what_it_opens(
    write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    device = DEVICES["openvino"]
    assert isinstance(device, TimedDevice)
    path = tmp_path / write_artifact(tmp_path, "onnx", "float32").file

    with device.opened(path, _TIMING) as timed:
        assert timed.runtime.startswith("OpenVINO")
        assert timed.time_one() > 0
    assert device.untimed(Path("x.tflite")) == "not run (OpenVINO (f32 hint) does not open TFLite)"


def test_the_cpu_executes_what_it_times(
    write_artifact: Callable[..., Artifact], manifest_of: Callable[..., Manifest], tmp_path: Path
) -> None:
    artifact = write_artifact(tmp_path, "tflite", "float32")
    picture = np.random.default_rng(0).random((8, 10, 3), np.float32)

    done = CPU().execute(Subject(tmp_path / artifact.file, artifact, 2), [picture])

    assert done.outputs is not None
    assert done.outputs[0].shape == (16, 20, 3)
    assert "LiteRT" in done.runtime
