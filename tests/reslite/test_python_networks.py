"""A network written in Python through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data

Cli = Callable[..., Any]

NETWORK = """
import torch
from torch import nn

print("this line must not spoil the results")


class MyNet(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.tail(torch.relu(self.head(x))), 2)
"""


@pytest.fixture
def network(tmp_path: Path) -> list[object]:
    """What names the network on the command line: file, class, argument and weights."""
    (tmp_path / "my_net.py").write_text(NETWORK)
    torch.manual_seed(0)
    shapes = {"head.weight": (8, 3, 3, 3), "head.bias": (8,), "tail.bias": (12,)}
    state = {name: torch.randn(shape) / 20 for name, shape in shapes.items()}
    state["tail.weight"] = torch.randn(12, 8, 3, 3) / 20
    torch.save({"state_dict": state}, tmp_path / "best.pth")
    weights = ["--weights", tmp_path / "best.pth"]
    return [f"{tmp_path / 'my_net.py'}:MyNet", *weights, "--with", "channels=8"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()[:80, 100:180]).save(folder / f"{name}.png")
    return folder


def test_pictures_of_any_sides_are_scored(cli: Cli, tmp_path: Path) -> None:
    """The network halves its picture, which is reflected up to a multiple, as by its files."""
    (tmp_path / "halving.py").write_text(
        """
from torch import nn

def halving():
    down, up = nn.Conv2d(3, 12, 2, stride=2), nn.PixelShuffle(2)
    nn.init.dirac_(down.weight)
    return nn.Sequential(down, nn.Conv2d(12, 12, 1), up)
"""
    )
    (tmp_path / "HR").mkdir()
    (tmp_path / "LR").mkdir()
    for folder in ("HR", "LR"):
        Image.fromarray(data.astronaut()[:41, 100:137]).save(tmp_path / folder / "odd.png")
    scores = cli("evaluate", f"{tmp_path / 'halving.py'}:halving", "--data", tmp_path, "--json")
    assert scores.code == 0, scores.err
    assert json.loads(scores.out)["pictures"] == 1


def test_inspect_tells_what_it_is(cli: Cli, network: list[object]) -> None:
    facts = json.loads(cli("inspect", *network, "--json").out)
    assert (facts["name"], facts["architecture"], facts["scale"]) == ("mynet", "MyNet", 2)
    assert facts["parameters"] == (216 + 8) + (864 + 12)
    assert facts["multadds_720p"] == (216 + 864) * 640 * 360
    assert facts["interpolation_multadds_720p"] == 0


@pytest.mark.slow
def test_it_is_quantized_exported_scored_restored_and_gated(
    cli: Cli, network: list[object], photos: Path, tmp_path: Path, photo: Path
) -> None:
    table, out = tmp_path / "table.json", tmp_path / "dist"
    options = ["--calibration", photos, "--tune", "0.02", "--out", table]
    assert cli("quantize", *network, *options).code == 0
    formats = ["--format", "tflite", "--format", "onnx", "--scales", table, "--out", out]
    exported = cli("export", *network, *formats)
    assert exported.code == 0, exported.err
    assert len(list(out.glob("mynet_x2_*"))) == 6
    manifest = json.loads((out / "manifest.json").read_text())
    source = manifest["training"]["source"]
    assert (source["file"], source["arguments"]) == ("my_net.py", {"channels": 8})
    assert source["weights"]["file"] == "best.pth"
    assert all(one["measured"]["max_abs_diff"] is not None for one in manifest["artifacts"])
    kept = cli("export", *network, *formats)
    assert "kept      mynet_x2_int8.onnx" in kept.out

    assert "mean of 2" in cli("evaluate", *network, "--data", photos).out
    assert cli("restore", photo, "--model", out / "mynet_x2_int8.tflite").code == 0
    assert Image.open(photo.with_name("photo_x2.png")).size == (2 * 64, 2 * 48)

    gate = ["gate", "--bundle", out, "--baseline", tmp_path / "baseline.json", "--data", photos]
    assert cli(*gate, "--network", *network, "--update").code == 0
    passed = cli(*gate, "--network", *network)
    assert passed.code == 0, passed.out
    assert "largest differences are from the network" in passed.out
    other = cli(*gate, "--network", network[0], "--with", "channels=8")
    assert "was made from weights of" in other.err


@pytest.mark.slow
def test_it_is_shipped(
    cli: Cli, network: list[object], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "dist"
    options = ["--calibration", photos, "--tune", "0", "--data", photos, "--out", out]
    short = ["--rounds", 2, "--threads", 1, "--latency-size", "24x24"]
    shipped = cli("ship", *network, *options, *short)
    assert shipped.code == 0, shipped.err
    assert len(list(out.glob("mynet_x2_*"))) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--with", "channels"], "channels: expected KEY=VALUE"),
        (["--with", "channels={a: 1}"], "expected a number, a text, true, false, null or a list"),
        (["--with", "channels=1", "--with", "channels=2"], "channels: given twice"),
        (["--with", "channels=[1"], "the value is not valid YAML"),
        (["--with", "channels=8", "--scale", 3], "my_net.py: restores ×2, not ×3; leave --scale"),
        (["--with", "chanels=8"], "takes no 'chanels'; it takes channels; did you mean"),
        ([], "MyNet: needs channels; say --with channels=…"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(
    cli: Cli, network: list[object], tmp_path: Path, options: list[object], message: str
) -> None:
    outcome = cli("ship", network[0], *options, "--out", tmp_path / "dist")
    assert outcome.code == 2
    assert message in outcome.err.splitlines()[-1]
    assert not (tmp_path / "dist").exists()


def test_numbers_are_read_as_people_write_them() -> None:
    from reslite.commands.network import parse_arguments

    words = ("rate=1e-3", "channels=64", "act=prelu", "flag=true", "sizes=[1, 2]", "name='7'")
    assert parse_arguments(None, None, words) == {  # type: ignore[arg-type]
        "rate": 1e-3,
        "channels": 64,
        "act": "prelu",
        "flag": True,
        "sizes": [1, 2],
        "name": "7",
    }


def test_options_of_python_do_not_go_with_other_networks(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("inspect", "carn-m", "--scale", 4, "--with", "channels=8")
    assert outcome.code == 2
    assert "carn-m: --with does not go with a network that reslite trained" in outcome.err
    outcome = cli("evaluate", tmp_path / "a.tflite", "--weights", "w.pth", "--data", tmp_path)
    assert "a.tflite: --weights does not go with an exported file" in outcome.err
    outcome = cli("inspect", "carn-m", "--scale", 4, "--as", "pcarn-m")
    assert "--as does not go with a network that reslite trained" in outcome.err
    assert "'pcarn-x' is not one of" in cli("inspect", "a.pth", "--as", "pcarn-x").err
    outcome = cli("gate", "--bundle", tmp_path, "--with", "a=1")
    assert outcome.code == 2
    assert "--with: say of which --network or --weights" in outcome.err
