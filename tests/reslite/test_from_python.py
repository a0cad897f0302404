"""A torch module handed over in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch import Tensor, nn

import reslite
import runtime
from runtime.errors import UserError

ROOT = Path(__file__).parents[2]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.tail = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        features = self.norm(self.head(picture)).relu()
        return nn.functional.pixel_shuffle(self.tail(features), 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()[:80, 100:180]).save(folder / f"{name}.png")
    return folder


def test_files_of_a_module_restore_as_it_does_and_leave_it_alone(
    tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    module = Twice().double()
    before = {name: one.clone() for name, one in module.state_dict().items()}
    manifest = reslite.export(module, scale=2, out=tmp_path, formats=["onnx", "tflite"])
    assert {one.file for one in manifest.artifacts} == {
        f"twice_x2_{precision}.{suffix}"
        for precision in ("float32", "float16")
        for suffix in ("onnx", "tflite")
    }
    assert module.training
    assert all(one.requires_grad and one.dtype == torch.double for one in module.parameters())
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    source = manifest.training["source"]
    assert (source["file"], source["class"]) == ("test_from_python.py", "Twice")

    crop = astronaut[:16, :20]
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].double() / 255
    with torch.no_grad():
        expected = module.eval()(image)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    restored = reslite.load(str(tmp_path / "twice_x2_float32.onnx")).restore(crop)
    assert np.abs(restored - expected).max() <= 0.51


@pytest.mark.slow
def test_a_module_is_shipped(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "dist"
    shipment = reslite.ship(
        Twice(),
        out=out,
        name="My net",
        calibration=photos,
        tune=0,
        data=str(photos),
        rounds=2,
        threads=1,
        latency_size=(24, 24),
    )
    assert len(list(out.glob("my_net_x2_*"))) == 10
    assert (shipment.manifest.model, shipment.report.scale) == ("my-net", 2)
    with runtime.open(out / "my_net_x2_int8.tflite") as session:
        assert session.scale == 2


def test_a_module_of_other_pictures_gives_files_of_plain_ones(
    tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    module = Twice().eval()
    with torch.no_grad():
        module.head.weight /= 255
        module.tail.weight *= 255
    reslite.export(
        module, out=tmp_path, formats=["onnx"], precisions=["float32"], peak=255, colour="bgr"
    )
    crop = astronaut[:16, :20]
    image = torch.from_numpy(crop[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = module(image)[0].permute(1, 2, 0).clamp(0, 255).numpy()[..., ::-1]
    restored = reslite.load(str(tmp_path / "twice_x2_float32.onnx")).restore(crop)
    assert expected.std() > 5
    assert np.abs(restored - expected).max() <= 0.51
    with pytest.raises(UserError, match="--range does not go with a network that reslite trained"):
        reslite.export("carn-m", scale=4, out=tmp_path / "no", peak=255)


def test_int8_scales_are_found_on_the_pictures(tmp_path: Path, photos: Path) -> None:
    kinds = {"formats": ["onnx"], "precisions": ["int8"]}
    manifest = reslite.export(Twice(), out=tmp_path / "o", calibration=photos, tune=0, **kinds)
    (artifact,) = manifest.artifacts
    assert artifact.scales_sha256 is not None
    assert artifact.measured.max_abs_diff is not None


def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def refused(module: Any, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            reslite.export(module, out=out, **options)
        assert not out.exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "restores ×2, not ×4" in refused(Twice(), scale=4)
    assert refused(nn.Bilinear(3, 3, 3)).startswith("Bilinear: its forward takes input1, input2;")
    assert refused(7).startswith("int: expected a module of torch, or the name or file")
    assert "onyx: expected some of" in refused(Twice(), formats=["onyx"])
    assert "int4: expected some of float32" in refused(Twice(), precisions=["int4"])
    assert "carn-m: has a name of its own" in refused("carn-m", scale=4, name="mine")


def test_the_base_installation_imports_no_torch() -> None:
    code = "import sys, reslite; print(reslite.ship.__name__, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "ship False\n", found.stderr
