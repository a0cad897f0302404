"""A tiny recipe, the generated pictures it trains on, and the command that does it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

TINY: dict[str, Any] = {
    "version": 2,
    "name": "tiny",
    "network": {"channels": 4, "blocks": 1, "units": 2, "groups": 2, "efficient": True},
    "stages": [{"steps": 30, "patch": 8, "batch": 2}, {"steps": 10, "patch": 12, "batch": 2}],
    "optimizer": {"learning_rate": 0.003, "clip_norm": 1.0, "warmup": 5, "decay": 10},
    "method": {"revive_at": [9, 20]},
    "execution": {"precision": "bf16"},
    "validation": {"every": 20},
    "checkpoint_every": 4,
    "seed": 3,
}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train/ and valid/ with smooth generated pictures."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for part, count in (("train", 3), ("valid", 1)):
        (folder / part).mkdir()
        for index in range(count):
            small = random.integers(0, 255, (9, 9, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((72, 60), Image.Resampling.BICUBIC)
            picture.save(folder / part / f"{index}.png")
    return folder


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe that trains in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture
def command(tiny_recipe: Path, tiny_data: Path) -> Callable[..., list[str]]:
    """Return the command that trains the tiny recipe into a folder on one thread."""

    def words(out: Path, *options: str) -> list[str]:
        train = [sys.executable, "-m", "reslite", "train", str(tiny_recipe)]
        return [*train, "--data", str(tiny_data), "--out", str(out), "--threads", "1", *options]

    return words
