"""A checkpoint of somebody else through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data

if find_spec("spandrel") is None:
    pytest.skip("needs the spandrel extra", allow_module_level=True)

from export.sources.checkpoint import import_spandrel

Cli = Callable[..., Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A Compact network with random weights, as a trainer saves it."""
    import_spandrel()
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.manual_seed(0)
    network = SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=1, upscale=4)
    path = tmp_path / "Their_Net_x4.pth"
    torch.save({"params": network.state_dict()}, path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()[:160, 100:260]).save(folder / f"{name}.png")
    return folder


def test_inspect_tells_what_a_checkpoint_is(cli: Cli, checkpoint: Path) -> None:
    outcome = cli("inspect", checkpoint)
    assert outcome.code == 0
    assert outcome.out.startswith("their-net: RealESRGAN Compact, ×4\n")
    assert "LeakyRelu 2, Resize 1" in outcome.out  # Its slopes are all one before training.
    assert "tflite int8" in outcome.out
    facts = json.loads(cli("inspect", checkpoint, "--json").out)
    # 3·8·9 + 8·8·9 + 8·48·9 weights, as many biases as channels, and a slope a channel.
    assert facts["parameters"] == (216 + 8 + 8) + (576 + 8 + 8) + (3456 + 48)
    assert facts["multadds_720p"] == (216 + 576 + 3456) * 320 * 180
    assert facts["halo"] == 3
    assert set(facts["files"].values()) == {""}


def test_inspect_tells_of_networks_of_our_own(cli: Cli) -> None:
    facts = json.loads(cli("inspect", "carn-m", "--scale", 4, "--json").out)
    assert (facts["architecture"], facts["parameters"]) == ("carn", 294_147)
    assert round(facts["multadds_720p"] / 1e9, 1) == 32.5


@pytest.mark.slow
def test_a_checkpoint_is_shipped_scored_and_gated(
    cli: Cli, checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "dist"
    options = ["--calibration", photos, "--tune", "0.02", "--data", photos, "--out", out]
    short = ["--rounds", 2, "--threads", 1, "--latency-size", "24x24"]

    shipped = cli("ship", checkpoint, *options, *short)

    assert shipped.code == 0, shipped.err
    assert "Their_Net_x4.pth: its licence goes with all files made of it" in shipped.err
    assert len(list(out.glob("their_net_x4_*"))) == 10
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["training"]["source"]["file"] == "Their_Net_x4.pth"

    scores = cli("evaluate", checkpoint, "--data", photos)
    assert scores.code == 0
    assert "mean of 2" in scores.out
    gate = ["gate", "--bundle", out, "--baseline", tmp_path / "baseline.json", "--data", photos]
    assert cli(*gate, "--weights", checkpoint, "--update").code == 0
    assert cli(*gate, "--weights", checkpoint).code == 0


def test_a_checkpoint_that_cannot_be_read_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 and no more")
    outcome = cli("ship", tmp_path / "cut.pth", "--out", tmp_path / "dist")
    assert outcome.code == 2
    assert outcome.err.endswith("cut.pth: not a checkpoint of torch, or damaged; copy it again\n")
    assert not (tmp_path / "dist").exists()
