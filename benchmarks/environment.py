"""The machine and the software of a measurement, stored with every figure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from runtime.opening import available_cores

# Instructions that decide how fast 8-bit and 16-bit arithmetic is, as /proc/cpuinfo names them.
_SIMD = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
_PACKAGES = (
    "reslite",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "openvino",
    "torch",
    "numpy",
    "ethos-u-vela",
)
_QUIET = 0.1


@dataclass(frozen=True)
class Environment:
    """The machine and the software of a measurement.

    Attributes:
        cpu: Model of the processor.
        simd: The processor's instructions for low-precision arithmetic.
        cores: Physical cores of the machine.
        available: Logical cores this process may use.
        memory_bytes: Main memory.
        system: Operating system, release and architecture.
        python: Version of Python.
        versions: Versions of the installed packages that matter, by name.
        load_average: Mean number of runnable processes in the minute before the measurement; None
            where the system does not report it.
        other_load: Share of the processor that was busy before the measurement began, in [0, 1].
    """

    cpu: str
    simd: tuple[str, ...]
    cores: int
    available: int
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str]
    load_average: float | None
    other_load: float

    @property
    def processor(self) -> str:
        """The model of the processor and its instructions for low-precision arithmetic."""
        return f"{self.cpu} ({', '.join(self.simd) or 'no low-precision instructions'})"

    @property
    def quiet(self) -> bool:
        """Whether the processor was less than 10 % busy, so that latencies can be trusted."""
        return self.other_load < _QUIET


def read_environment(sample_seconds: float = 0.5) -> Environment:
    """Describe this machine and how busy it is now.

    Args:
        sample_seconds: Seconds over which the load of the processor is measured.
    """
    available = available_cores()
    return Environment(
        cpu=_cpu_model(),
        simd=_simd(),
        cores=psutil.cpu_count(logical=False) or available,
        available=available,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=package_versions(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        other_load=read_load(sample_seconds),
    )


def read_load(sample_seconds: float) -> float:
    """Return the share of the processor that is busy during that time, in [0, 1]."""
    return float(round(psutil.cpu_percent(sample_seconds) / 100, 3))


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that figures depend on, by name."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _simd() -> tuple[str, ...]:
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(name for name in _SIMD if name in flags)


def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo; empty if there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
