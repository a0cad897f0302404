"""Python environments of their own, for runtimes that conflict with reslite's libraries.

``requirements/<name>.txt`` pins every package of an environment; nothing else is installed. The
environments lie in the user's cache folder and are made by ``reslite prove --prepare``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.devices.device import Device
from runtime.cache import cache_folder
from runtime.errors import UserError

_REQUIREMENTS = Path(__file__).parent / "requirements"
_STAMP = "requirements.txt"
_INSTALLATION_SECONDS = 900


class SeparateDevice(Device):
    """A device that executes in an environment of its own.

    Attributes:
        environment_name: Name of its pinned requirements.
        packages: The packages of it that results depend on.
    """

    environment_name: str
    packages: tuple[str, ...]

    def missing(self) -> str | None:
        """Return that the environment is not made, or not from today's requirements, or None."""
        if is_prepared(self.environment_name):
            return None
        return f"needs its own environment: reslite prove --prepare {self.name}"

    def versions(self) -> Mapping[str, str]:
        """Return the pinned versions."""
        pinned = pinned_versions(self.environment_name)
        return {name: pinned[name] for name in self.packages}

    def interpreter(self) -> Path:
        """Return the environment's Python."""
        return environment_folder(self.environment_name) / "bin" / "python"


def environment_folder(name: str) -> Path:
    """Return the folder of an environment, made or not."""
    return cache_folder() / "environments" / name


def pinned_versions(name: str) -> dict[str, str]:
    """Return the versions of an environment's packages."""
    lines = (_REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.strip().split("==") for line in lines if line and not line.startswith("#"))
    return dict(pairs)


def is_prepared(name: str) -> bool:
    """Tell whether an environment is made from the requirements as they are now."""
    stamp = environment_folder(name) / _STAMP
    wanted = (_REQUIREMENTS / f"{name}.txt").read_bytes()
    return stamp.exists() and stamp.read_bytes() == wanted


def prepare(name: str) -> None:
    """Make an environment and install its packages, unless that is done.

    Raises:
        UserError: If a package cannot be installed; nothing is left behind.
    """
    if is_prepared(name):
        return
    folder, requirements = environment_folder(name), _REQUIREMENTS / f"{name}.txt"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        import venv  # not part of Debian's Python without python3-venv

        venv.create(folder)
        _install(folder, requirements)
        # Written last: without it the environment is not taken for made.
        shutil.copyfile(requirements, folder / _STAMP)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _install(folder: Path, requirements: Path) -> None:
    # This interpreter's pip installs for that one. Every package is pinned, so that none brings
    # others (pnnx asks for torch with CUDA).
    python = str(folder / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    command += ["install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--requirement", str(requirements)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_INSTALLATION_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{requirements.stem}: not installed within {_INSTALLATION_SECONDS} s; check the "
            "network"
        ) from error
    if run.returncode:
        said = [line for line in run.stderr.splitlines() if "ERROR" in line or "No module" in line]
        version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        raise UserError(
            f"{requirements.stem}: its packages cannot be installed for {version} here "
            f"({said[-1] if said else 'pip gives no reason'}); check the network"
        )
