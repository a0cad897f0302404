"""arm64 in emulation, on a tiny CARN-M; most tests need QEMU and 'make arm64'."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

import runtime
from benchmarks.devices import arm64_instructions, arm64_root
from benchmarks.devices.arm64 import Arm64, open_on_arm64
from benchmarks.devices.arm64_instructions import Arm64Instructions
from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.device import Subject
from benchmarks.devices.isolated import execute_isolated
from runtime.errors import UserError

MISSING = DEVICES["arm64-instructions"].missing()
needs_arm64 = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def tiny_file(tmp_path, write_artifact):
    def write(format: str, precision: str) -> Subject:
        artifact = write_artifact(tmp_path, format, precision)
        return Subject(tmp_path / artifact.file, artifact, 2)

    return write


@needs_arm64
def test_litert_int8_is_identical_to_this_processor(tiny_file, astronaut):
    subject = tiny_file("tflite", "int8")
    picture = astronaut[100:116, 220:240].astype(np.float32) / 255
    done = execute_isolated(DEVICES["arm64"], subject, [picture])
    with runtime.open(subject.path, verify=False, threads=1) as session:
        expected = session.run(picture)
    assert np.array_equal(done.outputs[0], expected)
    assert "QEMU" in done.runtime
    assert "LiteRT" in done.runtime
    assert set(done.versions) == {"QEMU", "LiteRT", "ONNX Runtime"}


@needs_arm64
def test_counts_repeat_and_int8_uses_dot_products(tiny_file):
    subject = tiny_file("tflite", "int8")
    first, second = (
        execute_isolated(DEVICES["arm64-instructions"], subject, []).facts for _ in range(2)
    )
    kinds = [kind for kind in first if kind not in ("size", "instructions")]
    assert first["instructions"] == sum(first[kind] for kind in kinds)
    assert first["instructions"] == pytest.approx(second["instructions"], rel=1e-3)
    # A dot product has 16 multiply-adds, of which XNNPACK's kernels may leave some unused.
    multadds = subject.artifact.multadds * (2 * arm64_instructions.SIDE) ** 2 / (1280 * 720)
    assert first["dot product"] >= multadds / 16
    assert first["multiply add"] < first["dot product"]
    assert first["size"] == "64×64"


def test_what_is_missing_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(arm64_root.shutil, "which", lambda program: None)
    assert "apt-get install qemu-user" in Arm64().missing()
    monkeypatch.setattr(arm64_root.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "benchmarks.devices.arm64_root" in Arm64().missing()


def test_other_versions_than_of_this_machine_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(arm64_root.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arm64_root.root().mkdir(parents=True)
    versions = {"ai-edge-litert": "1.0.0", "onnxruntime": "1.0.0"}
    (arm64_root.root() / "versions.json").write_text(json.dumps(versions))
    assert "needs ai-edge-litert" in Arm64().missing()


def test_a_newer_qemu_is_refused_for_counting(monkeypatch):
    monkeypatch.setattr(Arm64, "missing", lambda self: None)
    monkeypatch.setattr(arm64_instructions.shutil, "which", lambda program: "/usr/bin/cc")
    monkeypatch.setattr(arm64_instructions, "qemu_version", lambda: "10.0.2")
    assert "10.0.2 found" in Arm64Instructions().missing()


def test_another_processor_never_passes_for_arm64(monkeypatch, tiny_file):
    monkeypatch.setattr("benchmarks.devices.arm64.platform.machine", lambda: "x86_64")
    with pytest.raises(UserError, match="runs on x86_64, not on arm64"):
        open_on_arm64(tiny_file("tflite", "int8"))


def test_a_missing_program_is_named_with_its_debian_package(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        arm64_root.shutil, "which", lambda program: None if program == "dpkg-deb" else "/bin/true"
    )
    with pytest.raises(UserError, match="dpkg-deb is not installed: apt-get install dpkg"):
        arm64_root.make_root()


def test_no_network_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    def fails(command, **options):
        return subprocess.CompletedProcess(command, 100, "", "E: Failed to fetch InRelease\n")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(arm64_root.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(arm64_root.subprocess, "run", fails)
    monkeypatch.setattr(arm64_root, "_SOURCES", (str(tmp_path / "some.sources"),))
    (tmp_path / "some.sources").write_text("")
    with pytest.raises(UserError, match=r"apt-get failed .*is there a network"):
        arm64_root.make_root()
    assert not any(arm64_root.root().parent.iterdir())
