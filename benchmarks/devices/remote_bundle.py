"""What another machine gets to run files: Python, glibc and the runtimes for arm64, and our runner.

Nothing of the machine's own system is used but its kernel, so that a phone without Debian's
libraries runs the same programs as a board. They come from the arm64 Debian of
``benchmarks.devices.arm64_root``, without what no inference needs.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from benchmarks.devices.arm64_root import PROCESSOR, installed_versions, root
from benchmarks.devices.remote_state import QEMU

RUNNER = "benchmarks.devices.timing_worker"
LAUNCHER = "python"

_SOURCES = Path(__file__).parents[2]
_PACKAGES = "usr/lib/python3/dist-packages"
_LIBRARIES = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
_LOADER = "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
_PROCESSOR = ("proc", "sys")  # the description of the processor that QEMU emulates
_UNNEEDED = frozenset(
    {
        "__pycache__",
        "aot",
        "ensurepip",
        "gconv",
        "idlelib",
        "libLiteRtWebGpuAccelerator.so",
        "pydoc_data",
        "quantization",
        "test",
        "tests",
        "tools",
        "transformers",
    }
)


def write_bundle(stream: IO[bytes], emulated: bool) -> None:
    """Write the bundle as a tar archive.

    Args:
        stream: Where to; it need not seek.
        emulated: Whether QEMU of the other machine is to run the programs.
    """
    with _archive(stream) as archive:
        for path, name in _files(emulated):
            archive.add(path, name, recursive=False, filter=_anonymous)
        _add_text(archive, LAUNCHER, _launcher(emulated))


def add_file(path: Path, name: str) -> Callable[[IO[bytes]], None]:
    """Return what writes a file as a tar archive that holds it under a name."""

    def write(stream: IO[bytes]) -> None:
        with _archive(stream) as archive:
            archive.add(path, name, filter=_anonymous)

    return write


def _archive(stream: IO[bytes]) -> tarfile.TarFile:
    """Return a new archive, in the format that phones' tar reads, too."""
    return tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT)


def _files(emulated: bool) -> Iterator[tuple[Path, str]]:
    """Return the files, and the links between them, with their names in the archive."""
    base = root()
    python = f"python{installed_versions()['Python']}"
    yield base / "usr" / "bin" / python, f"usr/bin/{python}"
    folders = (*_LIBRARIES, f"usr/lib/{python}", _PACKAGES)
    for folder in (*folders, *(_PROCESSOR if emulated else ())):
        for path in sorted((base / folder).rglob("*")):
            name = path.relative_to(base)
            if path.is_dir() or _UNNEEDED.intersection(name.parts):
                continue
            if not path.is_symlink() or not Path(path.readlink()).is_absolute():
                yield path, str(name)
    runner = f"{RUNNER.replace('.', '/')}.py"
    ours = [*(_SOURCES / "runtime").rglob("*.py"), _SOURCES / runner]
    for package in ("benchmarks", "benchmarks/devices"):
        ours.append(_SOURCES / package / "__init__.py")
    for path in ours:
        yield path, f"reslite/{path.relative_to(_SOURCES)}"


def _launcher(emulated: bool) -> str:
    """Return the script that runs Python with its own libraries, wherever the folder lies."""
    libraries = ":".join(f"$here/{one}" for one in _LIBRARIES)
    python = f"python{installed_versions()['Python']}"
    emulator = f'{QEMU} -cpu {PROCESSOR} -L "$here" ' if emulated else ""
    return f"""\
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONHOME="$here/usr" PYTHONPATH="$here/reslite:$here/{_PACKAGES}"
export PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 HOME="$here" TMPDIR="$here" LC_ALL=C.UTF-8
unset LD_PRELOAD LD_LIBRARY_PATH
exec {emulator}"$here/{_LOADER}" --library-path "{libraries}" "$here/usr/bin/{python}" "$@"
"""


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o755
    archive.addfile(info, io.BytesIO(content))


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out this machine's owners, whom a phone does not have."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
