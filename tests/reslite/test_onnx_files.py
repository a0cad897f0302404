"""An ONNX file of somebody else through the command line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

Cli = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A network with random weights, as torch's older exporter writes it for one size."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.PixelShuffle(2),
        nn.Sigmoid(),
    )
    path = tmp_path / "Their_Net_x2.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 24, 16),), path, dynamo=False, verbose=False)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()[:160, 100:260]).save(folder / f"{name}.png")
    return folder


def test_inspect_tells_what_a_file_is(cli: Cli, file: Path) -> None:
    facts = json.loads(cli("inspect", file, "--json").out)
    assert (facts["name"], facts["architecture"]) == ("their-net", "ONNX file of pytorch")
    assert facts["parameters"] == (216 + 8) + (864 + 12)
    assert facts["multadds_720p"] == (216 + 864) * 640 * 360
    assert set(facts["files"].values()) == {""}


@pytest.mark.slow
def test_a_file_is_shipped_scored_and_gated(
    cli: Cli, file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "dist"
    options = ["--calibration", photos, "--tune", "0", "--data", photos, "--out", out]

    shipped = cli("ship", file, *options, "--rounds", 2, "--threads", 1, "--latency-size", "24x24")

    assert shipped.code == 0, shipped.err
    assert "Their_Net_x2.onnx: its licence goes with all files made of it" in shipped.err
    assert len(list(out.glob("their_net_x2_*"))) == 10
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["training"]["source"]["file"] == "Their_Net_x2.onnx"

    scores = cli("evaluate", file, "--data", photos)
    assert scores.code == 0
    assert "mean of 2" in scores.out
    gate = ["gate", "--bundle", out, "--baseline", tmp_path / "baseline.json", "--data", photos]
    assert cli(*gate, "--weights", file, "--update").code == 0
    assert cli(*gate, "--weights", file).code == 0


def test_a_file_that_cannot_be_read_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x08\x12")
    outcome = cli("ship", tmp_path / "cut.onnx", "--out", tmp_path / "dist")
    assert outcome.code == 2
    assert outcome.err.endswith("cut.onnx: not an ONNX file, or damaged; copy it again\n")
    assert not (tmp_path / "dist").exists()
