"""Running the command line in this process or, where that matters, in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reslite.__main__ import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``reslite ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


def reslite_process(
    *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``reslite ARGUMENTS`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "reslite", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    return reslite_process


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of CARN-M ×4 with float32 and int8 ONNX and TFLite files, made by the CLI."""
    folder = tmp_path_factory.mktemp("bundle")
    arguments = ["--format", "onnx", "--format", "tflite"]
    arguments += ["--precision", "float32", "--precision", "int8", "--out", str(folder)]
    assert main(["export", "carn-m", "--scale", "4", *arguments]) == 0
    return folder


@pytest.fixture
def photo(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """A 64 × 48 PNG."""
    path = tmp_path / "photo.png"
    Image.fromarray(astronaut[40:88, 180:244]).save(path)
    return path
