"""An arm64 Debian in a folder, with Python and the runtimes, whose programs QEMU runs on x86-64.

``python -m benchmarks.devices.arm64_root`` (or ``make arm64``) makes it in the cache folder: apt
loads Debian's packages into lists of its own, so that nothing changes for this machine's apt, and
pip the wheels for aarch64 in the versions that are installed here. Results then differ from this
machine's by the processor alone.

The folder describes one Cortex-A76, whose dot products LiteRT's and ONNX Runtime's kernels use.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from runtime.cache import cache_folder
from runtime.errors import UserError

QEMU = "qemu-aarch64"
PROCESSOR = "cortex-a76"
COMMAND = f"{Path(sys.executable).name} -m benchmarks.devices.arm64_root"
RUNTIMES: Mapping[str, str] = {"LiteRT": "ai-edge-litert", "ONNX Runtime": "onnxruntime"}

_DEBIAN_PACKAGES = ("python3", "libstdc++6")
_PYTHON_PACKAGES = (
    *RUNTIMES.values(),
    "backports.strenum",
    "flatbuffers",
    "ml_dtypes",
    "numpy",
    "packaging",
    "protobuf",
    "tqdm",
    "typing_extensions",
)
_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
_VERSIONS = "versions.json"
_LAUNCHER = "python"
_CPU_INFO = """\
processor	: 0
BogoMIPS	: 100.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1
"""


def root() -> Path:
    """Return the folder of the arm64 Debian, which may not exist yet."""
    return cache_folder() / "arm64"


def launcher() -> Path:
    """Return the program that runs the folder's Python in QEMU."""
    return root() / _LAUNCHER


def missing_root() -> str | None:
    """Return what is missing to run arm64 programs here, with the command, or None."""
    if shutil.which(QEMU) is None:
        return "needs QEMU: apt-get install qemu-user (Debian)"
    return missing_programs()


def missing_programs() -> str | None:
    """Return that the folder or a runtime in it is missing, with the command, or None."""
    installed = installed_versions()
    if not installed:
        return f"needs an arm64 Debian in a folder: {COMMAND}"
    for package in RUNTIMES.values():
        here = metadata.version(package)
        if installed.get(package) != here:
            return f"needs {package} {here} for arm64, as on this machine: {COMMAND}"
    return None


def installed_versions() -> Mapping[str, str]:
    """Return the versions of Python and its packages in the folder; empty if there is none."""
    try:
        found: dict[str, str] = json.loads((root() / _VERSIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def qemu_version() -> str:
    """Return QEMU's version, for example ``7.2.22``."""
    run = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    words = run.stdout.split()
    return words[words.index("version") + 1] if "version" in words else "unknown"


def make_root() -> Path:
    """Make the folder, in place of an earlier one.

    Raises:
        UserError: If a program or the network is missing, or a package cannot be had.
    """
    packages = {
        "apt-get": "apt",
        "dpkg-deb": "dpkg",
        QEMU: "qemu-user",
    }
    for program, package in packages.items():
        if shutil.which(program) is None:
            raise UserError(
                f"{program} is not installed: apt-get install {package} (the folder is made of "
                "Debian's packages, on Debian)"
            )
    final = root()
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix="arm64-") as name:
        made = Path(name, "root")
        _unpack_debian(made, Path(name, "apt"))
        python = _python_of(made)
        _install_packages(made, python)
        _describe_processor(made)
        versions = {one: metadata.version(one) for one in _PYTHON_PACKAGES}
        text = json.dumps({"Python": python, **versions}, indent=2)
        (made / _VERSIONS).write_text(text + "\n", encoding="utf-8")
        emulated = final / "usr" / "bin" / f"python{python}"
        command = [QEMU, "-cpu", PROCESSOR, "-L", str(final), str(emulated)]
        start = made / _LAUNCHER
        start.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
        start.chmod(0o755)
        if final.exists():
            shutil.rmtree(final)
        made.rename(final)
    return final


def _unpack_debian(made: Path, apt: Path) -> None:
    """Unpack Debian's packages for arm64, with all that they need, into ``made``."""
    source = next((Path(one) for one in _SOURCES if Path(one).exists()), None)
    if source is None:
        raise UserError(f"no sources of Debian packages found ({' or '.join(_SOURCES)})")
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True)
    (apt / "sources").mkdir()
    shutil.copy(source, apt / "sources")
    (apt / "status").touch()
    listed = source.suffix == ".list"
    settings: dict[str, str | Path] = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Update::Error-Mode": "any",  # else it passes without a network
        "APT::Sandbox::User": "root",  # apt's own user may not enter the user's cache folder
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourceparts": apt / "sources",
        "Dir::Etc::sourcelist": apt / "sources" / source.name if listed else "/dev/null",
    }
    command = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*command, "update"])
    install = ["install", "--yes", "--download-only", "--no-install-recommends"]
    _run([*command, *install, *_DEBIAN_PACKAGES])
    made.mkdir()
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(made)])


def _python_of(made: Path) -> str:
    """Return the version of the folder's Python as its program is named, for example ``3.11``."""
    found = sorted((made / "usr" / "bin").glob("python3.[0-9]*"))
    if not found:
        raise UserError("Debian's package python3 holds no Python; report this")
    return found[0].name.removeprefix("python")


def _install_packages(made: Path, python: str) -> None:
    """Install the runtimes for aarch64 in the versions of this machine."""
    wanted = [f"{package}=={metadata.version(package)}" for package in _PYTHON_PACKAGES]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)]
    target = made / "usr" / "lib" / "python3" / "dist-packages"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options = ["--no-deps", "--only-binary=:all:", "--implementation=cp", "--upgrade"]
    _run(
        [
            *pip,
            *options,
            *platforms,
            "--platform=manylinux2014_aarch64",
            f"--python-version={python}",
            f"--target={target}",
            *wanted,
        ]
    )


def _describe_processor(made: Path) -> None:
    """Write what programs read of the processor; QEMU would show them this machine's."""
    (made / "proc").mkdir()
    (made / "proc" / "cpuinfo").write_text(_CPU_INFO, encoding="utf-8")
    folder = made / "sys" / "devices" / "system" / "cpu"
    folder.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (folder / name).write_text("0\n", encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    """Run a program.

    Raises:
        UserError: If it fails.
    """
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if run.returncode:
        said = [line for line in (run.stderr or run.stdout).splitlines() if line.strip()]
        reason = next((line for line in said if line.startswith(("E:", "ERROR"))), "")
        raise UserError(
            f"{Path(command[0]).name} failed ({reason or (said[-1] if said else 'no message')}); "
            "is there a network?"
        )


if __name__ == "__main__":
    try:
        print(f"made {make_root()}")
    except UserError as error:
        sys.exit(f"reslite: {error}")
