"""The wheel, installed: everything that it needs is in it, and nothing that edits a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtime", "training", "export", "quantize", "benchmarks", "reslite")


def _files(folder: Path) -> set[Path]:
    """Return the files of the packages in a folder, relative to it."""
    return {
        path.relative_to(folder)
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's packages, built from a copy of the checkout."""
    sources, wheels, site = (tmp_path_factory.mktemp(name) for name in ("src", "wheel", "site"))
    for name in (*PACKAGES, "tools"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels]
    _check(subprocess.run([*build, sources], capture_output=True, text=True))
    (wheel,) = wheels.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _check(subprocess.run([*install, "--target", site, wheel], capture_output=True, text=True))
    return site


def _python(installed: Path, folder: Path, *arguments: str) -> str:
    """Run Python in another folder, our packages being those of ``installed``."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", *arguments]
    return _check(
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    )


def _check(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_installed(installed: Path) -> None:
    expected = _files(ROOT)

    assert _files(installed) == expected
    assert not (installed / "tools").exists()
    assert not (installed / "tests").exists()
    for package in PACKAGES:
        assert Path(package, "py.typed") in expected


def test_installed_data_is_found_and_read(installed: Path, tmp_path: Path) -> None:
    code = """
import json, pathlib
import benchmarks, export, quantize, reslite, runtime, training
from benchmarks.accuracy import PictureScore, Scores
from benchmarks.snapshots import BASELINES, read_snapshot
from benchmarks.report.report import Report, to_html
from quantize import load_scales
from training.catalogue import list_models
from training.data.wallpapers import listed_wallpapers
from training.recipe_reading import load_recipe, recipe_names

scores = Scores(30.5, 0.875, (PictureScore("one", 30.5, 0.875),))
models = list_models()
report = Report(model="carn-m", task=models[0].task, scale=4, pictures="Set5", source=scores,
                baseline=scores, rows=(), latency=None)
print(json.dumps({
    "packages": [str(pathlib.Path(one.__file__).parent.parent) for one in
                 (benchmarks, export, quantize, reslite, runtime, training)],
    "page": to_html(report),
    "recipes": [load_recipe(name).name for name in recipe_names()],
    "models": [one.name for one in models],
    "scales": [load_scales(one.name, scale).model for one in models for scale in one.scales],
    "baselines": [read_snapshot(path).model for path in BASELINES.glob("*.json")],
    "wallpapers": len(listed_wallpapers()),
}))
"""

    found = json.loads(_python(installed, tmp_path, "-c", code))

    assert set(found["packages"]) == {str(installed)}
    assert "<h1" in found["page"]
    assert "30.5" in found["page"]
    assert {"carn", "carn-m", "mepsnet", "mepsnet-s"} <= set(found["recipes"])
    assert {"carn", "carn-m", "mepsnet", "mepsnet-s"} <= set(found["models"])
    assert found["scales"].count("carn-m") == 3
    assert {"carn-m", "mepsnet-s"} <= set(found["baselines"])
    assert found["wallpapers"] == 411


def test_installed_command_line_times_a_file_in_a_process_of_its_own(
    installed: Path, tmp_path: Path
) -> None:
    picture = [1, 3, None, None]
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, picture) for n in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "network", tensors[:1], tensors[1:])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "a.onnx")

    options = ("--starts", "1", "--rounds", "2", "--threads", "1", "--size", "8x9", "--json")
    output = _python(installed, tmp_path, "-m", "reslite", "bench", "a.onnx", *options)

    (row,) = json.loads(output)["rows"]
    assert row["size"] == [8, 9]
    assert len(row["samples_ms"]) == 2
