"""Scales that are found for files: what was tuned is tuned once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from export.sources.source import Source
from reslite.modules import found
from reslite.scales import found_scales


class _Sharper(nn.Module):
    """A convolution and a shuffle around bent features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.slopes = nn.PReLU(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Enlarge pictures."""
        return nn.functional.pixel_shuffle(self.last(self.slopes(self.first(image))), 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of one small photograph."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(data.astronaut()[:80, 100:180]).save(folder / "astronaut.png")
    return folder


def test_tuned_scales_are_kept_for_the_same_weights_pictures_and_minutes(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = Source.of(*found(_Sharper(), None, 2, None, None))
    told: list[str] = []

    table = found_scales(source, photos, 0.01, told.append)

    assert "tuning for 0.01 minutes" in told[0]
    assert found_scales(source, photos, 0.01, told.append) == table
    assert "kept in" in told[-1]
    (kept,) = tmp_path.rglob("scales_*_0.01min.json")
    dataclasses.replace(table, method="minmax, tuned in 1 steps").write(kept)  # a busy machine's
    assert found_scales(source, photos, 0.01, told.append).method == "minmax, tuned in 1 steps"
    assert "tuned in 1 steps; kept in" in told[-1]
    assert "--overwrite tunes again" in told[-1]
    again = found_scales(source, photos, 0.01, told.append, again=True)
    assert "tuning for 0.01 minutes" in told[-2]
    assert again.method != "minmax, tuned in 1 steps"
    assert found_scales(source, photos, 0.01, told.append) == again
    assert "tuned" not in found_scales(source, photos, 0, told.append).method
