from __future__ import annotations

import dataclasses
import platform

import numpy as np
import psutil
import pytest

from benchmarks import environment
from benchmarks.environment import read_environment

X86 = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu avx2 avx512_vnni amx_int8 avx512_vbmi

processor\t: 1
model name\t: Another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


def test_machine_is_described() -> None:
    found = read_environment(sample_seconds=0.01)

    assert found.memory_bytes == psutil.virtual_memory().total
    assert 1 <= found.available <= (psutil.cpu_count() or 1)
    assert found.versions["numpy"] == np.__version__
    assert platform.machine() in found.system
    assert 0 <= found.other_load <= 1


@pytest.mark.parametrize(
    ("text", "cpu", "simd"),
    [
        (X86, "Some CPU", ("avx2", "avx512_vnni", "amx_int8")),
        (ARM, None, ("asimd", "asimddp", "i8mm")),
        (None, None, ()),
    ],
    ids=["x86-64", "Arm", "no /proc"],
)
def test_processor_is_read_from_cpuinfo(
    text: str | None,
    cpu: str | None,
    simd: tuple[str, ...],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fake:
        def __init__(self, path: str) -> None:
            assert path == "/proc/cpuinfo"

        def exists(self) -> bool:
            return text is not None

        def read_text(self, **_: str) -> str:
            return text or ""

    monkeypatch.setattr(environment, "Path", Fake)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "system", lambda: "Linux")

    found = read_environment(sample_seconds=0.01)

    assert found.simd == simd
    assert found.cpu == (cpu or platform.machine())


def test_busy_machine_is_not_quiet() -> None:
    calm = dataclasses.replace(read_environment(sample_seconds=0.01), other_load=0.02)

    assert calm.quiet
    assert not dataclasses.replace(calm, other_load=0.4).quiet
