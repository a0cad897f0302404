"""``reslite ship`` from end to end, and what happens when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import reslite
from export.capture.torch_capture import capture
from export.graph import Graph
from export.sources import source as source_module
from export.sources.source import Source
from reslite import shipping
from runtime.manifest import read_manifest, sha256_of
from training.catalogue import find_model
from training.checkpoint import save_tensors
from training.recipe_reading import load_recipe

Cli = Callable[..., Any]

pytestmark = pytest.mark.slow

FILES = {
    f"carn_m_x4_{precision}{suffix}"
    for precision in ("float32", "float16", "int8")
    for suffix in (".onnx", ".tflite", ".mlpackage")
} | {"carn_m_x4_int8_float_io.tflite"}

# The files are tested, not their latency.
SHORT = ["--rounds", 2, "--threads", 1, "--latency-size", "24x24"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dist")


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The modules that were captured so far."""
    modules: list[torch.nn.Module] = []

    def recorded(module: torch.nn.Module) -> Graph:
        modules.append(module)
        return capture(module)

    monkeypatch.setattr(source_module, "capture", recorded)
    return modules


def test_ship_makes_proves_and_reports_everything(
    cli: Cli, out: Path, captured: list[torch.nn.Module]
) -> None:
    outcome = cli("ship", "carn-m", "--scale", 4, "--out", out, *SHORT)
    assert outcome.code == 0, outcome.err
    assert len(captured) == 2, "CARN-M and CARN, which it is compared with, each once"

    rows = {row["file"]: row for row in json.loads((out / "report.json").read_text())["artifacts"]}
    assert set(rows) == FILES
    for file, row in rows.items():
        assert row["bytes"] > 100_000
        assert row["multadds"] == pytest.approx(32.5e9, rel=2e-3)
        if file.endswith(".mlpackage"):
            assert row["not_run"] == "not run (needs macOS)"
            assert row["psnr"] is row["latency_ms"] is row["max_abs_diff"] is None
        else:
            assert row["latency_ms"]["median"] > 0
            assert abs(row["psnr_loss"]) <= (0.06 if row["precision"] == "int8" else 0.005)
            limit = {"float32": 1e-5, "float16": 2e-3, "int8": 0.4}[row["precision"]]
            assert row["max_abs_diff"] <= limit

    manifest = read_manifest(out)
    assert manifest is not None
    for artifact in manifest.artifacts:
        assert artifact.sha256 == sha256_of(out / artifact.file)
    page = (out / "report.html").read_text()
    assert page.count("data:image/") >= 6
    assert 'src="http' not in page
    assert "estimated by the vendor" in page
    assert (out / "restored.png").stat().st_size > 1000
    assert "carn_m_x4_int8.tflite" in outcome.out


def test_a_second_ship_keeps_the_files(cli: Cli, out: Path) -> None:
    before = {file: (out / file).stat().st_mtime_ns for file in FILES}
    outcome = cli("ship", "carn-m", "--scale", 4, "--out", out, *SHORT, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("kept ") >= len(FILES)
    assert {file: (out / file).stat().st_mtime_ns for file in FILES} == before
    assert json.loads(outcome.out)["model"] == "carn-m"


def test_ctrl_c_keeps_finished_files_and_leaves_no_partial_ones(tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    command = [sys.executable, "-m", "reslite", "ship", "carn-m", "--scale", "4", "--out"]
    process = subprocess.Popen(
        [*command, str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not _proven(folder):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "interrupted; finished work is kept" in errors
    assert "Traceback" not in errors
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    manifest = read_manifest(folder)
    assert manifest is not None
    assert 1 <= len(manifest.artifacts) < len(FILES)
    assert len(_proven(folder)) == len(manifest.artifacts)
    suffixes = (".onnx", ".tflite", ".mlpackage")
    assert {path.name for path in folder.iterdir() if path.suffix in suffixes} == _proven(folder)


def _proven(folder: Path) -> set[str]:
    """Return the files that a bundle's manifest says were compared with their source."""
    manifest = read_manifest(folder)
    artifacts = () if manifest is None else manifest.artifacts
    return {one.file for one in artifacts if one.measured.max_abs_diff is not None}


def test_ones_own_weights_are_shipped_and_other_exports_beside_them_are_let_be(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    captured: list[torch.nn.Module],
) -> None:
    recipe = load_recipe("carn-m", ["name=mine", "network.blocks=1", "network.channels=8"])
    weights, out = tmp_path / "mine.safetensors", tmp_path / "dist"
    torch.manual_seed(0)
    network = recipe.network.build()
    save_tensors(weights, network.state_dict(), {"recipe": recipe.model_dump_json()})
    Image.fromarray(data.astronaut()[:200, :200]).save(tmp_path / "a.png")
    monkeypatch.setattr(shipping, "list_models", list)
    assert cli("export", weights, "--scale", 2, "--format", "tflite", "--out", out).code == 2
    assert not out.exists(), "int8 has no scales, which shows before anything is written"
    fixed = ["--precision", "float32", "--size", "1x1", "--out", out]
    assert cli("export", weights, "--scale", 2, "--format", "tflite", *fixed).code == 0

    captured.clear()
    options = ["--calibration", tmp_path, "--out", out, *SHORT]
    outcome = cli("ship", weights, "--scale", 2, *options)

    assert outcome.code == 0, outcome.err
    assert len(captured) == 1
    shown = {row["file"] for row in json.loads((out / "report.json").read_text())["artifacts"]}
    assert shown == {name.replace("carn_m_x4", "mine_x2") for name in FILES}
    assert json.loads((out / "report.json").read_text())["npu"]
    assert "mine_x2_float32_1x1.tflite" in {one.file for one in read_manifest(out).artifacts}


def test_fixed_sizes_are_beside_the_files_of_any_size_and_restore_tiles(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("carn-m", ["name=mine", "network.blocks=1", "network.channels=8"])
    weights, out = tmp_path / "mine.safetensors", tmp_path / "dist"
    torch.manual_seed(0)
    save_tensors(weights, recipe.network.build().state_dict(), {"recipe": recipe.model_dump_json()})
    picture = data.astronaut()[:200, :190]
    Image.fromarray(picture).save(tmp_path / "a.png")
    monkeypatch.setattr(shipping, "list_models", list)
    options = ["--scale", 2, "--calibration", tmp_path, "--out", out, *SHORT]

    sizes = ["--size", "40x36", "--size", "48x48"]
    outcome = cli("ship", weights, *options, *sizes, "--image-io", "--app", "python")

    assert outcome.code == 0, outcome.err
    packages = (name for name in FILES if name.endswith(".mlpackage"))
    images = {f"{Path(name).stem}_image_io.mlpackage" for name in packages}
    every_size = {name.replace("carn_m_x4", "mine_x2") for name in FILES | images}
    fixed = {
        size: {f"{Path(name).stem}_{size}{Path(name).suffix}" for name in every_size}
        for size in ("40x36", "48x48")
    }
    manifest = read_manifest(out)
    assert {one.file for one in manifest.artifacts} == every_size.union(*fixed.values())
    assert {one.file for one in manifest.artifacts if one.fixed_size == (40, 36)} == fixed["40x36"]
    report = json.loads((out / "report.json").read_text())
    assert {row["file"] for row in report["artifacts"]} == every_size
    assert [set(one["files"]) for one in report["fixed_sizes"]] == list(fixed.values())
    assert all(one["max_abs_diff"]["float32"] <= 1e-5 for one in report["fixed_sizes"])
    assert outcome.out.count("fixed at ") == 2

    app = out / "app" / "python"
    assert f"\n{app}\n" in outcome.out
    assert json.loads((app / "app.json").read_text())["window"] == [40, 36]
    command = [sys.executable, "-I", app / "restore.py", "--self-test"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0

    for kind in ("float32.onnx", "int8.tflite", "int8_float_io.tflite"):
        stem, _, suffix = kind.rpartition(".")
        anywhere = reslite.load(str(out / f"mine_x2_{kind}"))
        tiled = reslite.load(str(out / f"mine_x2_{stem}_40x36.{suffix}"))
        assert tiled.session.fixed_size == (40, 36)
        apart = anywhere.restore(picture).astype(int) - tiled.restore(picture)
        assert np.abs(apart).max() <= (1 if "float32" in kind else 0), kind
        assert tiled.restore(picture[:9, :11]).shape == (18, 22, 3)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("30x128", "tiles of 30x128 are all halo: this network loses 2"),
        ("128", "128: expected height x width"),
        ("900000x900000", "an input of 900000x900000 takes"),
    ],
)
def test_sizes_that_no_file_can_have_are_one_line_and_leave_nothing_behind(
    cli: Cli, tmp_path: Path, size: str, message: str
) -> None:
    outcome = cli("ship", "carn-m", "--scale", 4, "--size", size, "--out", tmp_path / "dist")
    assert outcome.code == 2
    assert message in outcome.err.splitlines()[-1]
    assert not (tmp_path / "dist").exists()


def test_an_unwritable_folder_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    outcome = cli("export", "carn-m", "--scale", 4, "--format", "onnx", "--out", blocked / "dist")
    assert outcome.code == 2
    assert "cannot be written" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "scale", "peers"),
    [("carn-m", 4, ["carn"]), ("mepsnet", 1, ["mepsnet-s"]), ("mepsnet-s", 1, [])],
)
def test_networks_many_times_larger_are_not_timed_beside_one(
    name: str, scale: int, peers: list[str]
) -> None:
    source = Source.of(find_model(name), scale)
    assert [peer.name for peer in shipping.peers_of(source)] == peers


def test_files_that_lose_more_than_a_decibel_are_named() -> None:
    losses: dict[str, float | None] = {"a.tflite": 1.2, "b.tflite": 0.9, "c.mlpackage": None}
    artifacts = [
        SimpleNamespace(file=file, measured=SimpleNamespace(psnr_loss=loss))
        for file, loss in losses.items()
    ]
    manifest: Any = SimpleNamespace(artifacts=artifacts)
    told: list[str] = []

    shipping.tell_losses(manifest, told.append)

    (line,) = told
    assert line.startswith("a.tflite loses 1.2 dB")
