"""Devices that no machine of ours has: what can be tested of them, and that they say so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import measure_times
from benchmarks.blocks import Contender, Recorder
from benchmarks.comparison import Plan, measure_latency
from benchmarks.devices import coreml, cuda
from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.cuda import Cuda, open_on
from benchmarks.devices.device import TimedDevice, Timing
from benchmarks.devices.timed_process import ProcessTimedDevice
from runtime.engines.onnxruntime_engine import open_engine
from runtime.errors import UserError
from runtime.manifest import Artifact, Manifest
from runtime.session import Session

MISSING = Cuda().missing()


def test_without_a_card_the_reason_is_told(tmp_path: Path) -> None:
    if MISSING is None:
        pytest.skip("there is a card here")
    assert "NVIDIA card" in MISSING or "onnxruntime-gpu" in MISSING
    with pytest.raises(UserError, match=r"x\.onnx \(cuda\): not run \(needs"):
        measure_times([tmp_path / "x.onnx"], [Cuda()], Recorder(), plan=Plan(1, 1, 0))


@pytest.mark.skipif(MISSING is not None, reason=f"cuda: {MISSING}")
def test_a_real_card(write_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, "onnx", "float32")
    one = Contender(tmp_path / artifact.file, Cuda(), artifact, "tiny", "x", artifact.sha256)
    (row,) = measure_latency([one], plan=Plan(1, 3, 1), size=(24, 32)).rows
    assert row.runtime is not None
    assert "CUDAExecutionProvider" in row.runtime


def test_bound_tensors_give_what_others_give(
    write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    artifact = write_artifact(tmp_path, "onnx", "float32")
    path = tmp_path / artifact.file
    pictures = [np.random.default_rng(k).random((8 + k, 12, 3), np.float32) for k in range(2)]

    with (
        Session("a", open_on(path, 1, "CPUExecutionProvider", "cpu"), 2) as bound,
        Session("b", open_engine(path, 1), 2) as usual,
    ):
        for picture in pictures:
            np.testing.assert_array_equal(bound.run(picture), usual.run(picture))


def test_what_does_not_load_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="does not run on CPUExecutionProvider"):
        open_on(tmp_path / "x.onnx", 1, "CPUExecutionProvider", "cpu")


class _OnCPU(ProcessTimedDevice):
    """The way of ``cuda`` through a process, without a card."""

    name, title, takes = "bound", "Bound", Cuda.takes
    opener, option = "tests_opener", "CPUExecutionProvider"

    missing = versions = execute = None  # type: ignore[assignment]


def test_a_device_may_bring_its_own_engine(
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = write_artifact(tmp_path, "onnx", "float32")
    code = "from benchmarks.devices.cuda import open_on\n"
    code += "def open_engine(path, threads, option): return open_on(path, threads, option, 'cpu')\n"
    (tmp_path / "tests_opener.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    device, path = object.__new__(_OnCPU), tmp_path / artifact.file
    timing = Timing((8, 8), 1, 0)

    with pytest.raises(UserError, match=r"needs the manifest\.json"), device.opened(path, timing):
        pass
    manifest_of(artifact).write(tmp_path)
    with device.opened(path, timing) as timed:
        assert timed.runtime.endswith("CPUExecutionProvider")
        assert (timed.size, timed.scale) == ((8, 8), 2)
        assert timed.time_one() > 0


@pytest.mark.skipif(sys.platform == "darwin", reason="there it may run")
@pytest.mark.parametrize("name", ["coreml-cpu", "coreml-gpu", "coreml-ne"])
def test_core_ml_needs_a_mac(name: str) -> None:
    device = DEVICES[name]
    assert isinstance(device, TimedDevice)
    assert (device.missing() or "").startswith("needs macOS")
    assert device.untimed(Path("x.mlpackage")) == "not run (needs macOS)"
    assert "opens .mlpackage alone" in (device.untimed(Path("x.onnx")) or "")


def _plan(*devices: str | None) -> Any:
    """A compute plan with the devices of its operations; constants have none."""

    def usage(operation: str | None) -> Any:
        if operation is None:
            return None
        return SimpleNamespace(preferred_compute_device=type(operation, (), {})())

    block = SimpleNamespace(operations=devices)
    program = SimpleNamespace(functions={"main": SimpleNamespace(block=block)})
    return SimpleNamespace(
        model_structure=SimpleNamespace(program=program),
        get_compute_device_usage_for_mlprogram_operation=usage,
    )


def test_operations_are_counted_by_device() -> None:
    plan = _plan(None, "MLNeuralEngineComputeDevice", "MLCPUComputeDevice", None)
    assert coreml.placement(plan) == {"MLNeuralEngineComputeDevice": 1, "MLCPUComputeDevice": 1}


def test_the_names_are_those_of_coremltools() -> None:
    import coremltools

    for units, place in coreml._PLACES.items():
        assert units in coremltools.ComputeUnit.__members__
        assert hasattr(coremltools.models.compute_device, place)
    plan = coremltools.models.compute_plan.MLComputePlan
    assert hasattr(plan, "load_from_path")
    assert hasattr(plan, "get_compute_device_usage_for_mlprogram_operation")
    assert hasattr(coremltools.models.MLModel, "get_compiled_model_path")


def test_a_card_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(returncode=0, stdout="NVIDIA H200, 570.1\n", stderr="")
    monkeypatch.setattr(cuda.subprocess, "run", lambda *_, **__: found)
    assert Cuda().machine() == "NVIDIA H200, 570.1"
    found.returncode, found.stdout, found.stderr = 9, "", "no devices"
    with pytest.raises(UserError, match="no devices"):
        Cuda().machine()
