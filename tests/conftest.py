"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from benchmarks.field import FieldRow, field_rows
from benchmarks.measurement import Measurement
from training.data.pictures import data_folder
from training.recipe import Recipe
from training.recipe_reading import load_recipe

# Tests do not assert how long anything takes: machines differ and do other things meanwhile.
settings.register_profile("reslite", deadline=None)
settings.load_profile("reslite")


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests measure out of the user's store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESLITE_STORE", str(tmp_path_factory.mktemp("store") / "results.sqlite"))
        yield


@pytest.fixture(scope="session")
def standard_data() -> Path:
    """The folder of the standard pictures; the test is skipped where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("set RESLITE_DATA to the folder with set5/, set14/, b100/, train/ and valid/")
    return folder


@pytest.fixture(scope="session")
def given_weights_folder() -> Path:
    """The folder of others' weights; the test is skipped where there is none."""
    folder = data_folder()
    if folder is None or not (folder / "weights").is_dir():
        pytest.skip("set RESLITE_DATA to a folder with alexnet_features.safetensors … in weights/")
    return folder / "weights"


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A 512 × 512 RGB photograph that ships with scikit-image."""
    from skimage import data

    picture: NDArray[np.uint8] = data.astronaut()
    return picture


FIELD_AT_TEST_SIZE = {
    "srcnn": "widths=[8, 4]",
    "fsrcnn": "channels=8 shrunk=4",
    "espcn": "widths=[8, 4]",
    "vdsr": "channels=8 layers=4",
    "drcn": "channels=8 recursions=3",
    "drrn": "channels=8 blocks=2 units=3",
    "lapsrn": "channels=8 layers=2",
    "btsrn": "channels=8 low=2 high=1",
    "memnet": "channels=8 blocks=2 recursions=2",
    "selnet": "channels=8 blocks=2",
    "srdensenet": "channels=8 blocks=2 growth=4 layers=3",
    "srresnet": "channels=8 blocks=2",
    "edsr-baseline": "channels=8 blocks=2",
    "edsr": "channels=8 blocks=2",
    "mdsr": "channels=8 blocks=2",
    "rcan": "channels=8 residual_groups=2 blocks=2 reduction=4",
    "rdn": "channels=8 blocks=2 layers=2 growth=8",
    "dncnn": "channels=8 layers=4",
    "imdn": "channels=8 blocks=2 reduction=4",
    "span": "channels=8 blocks=2",
}
"""What makes the network of each recipe of the field small: keys below ``network``."""


@pytest.fixture(scope="session")
def field_recipe() -> Callable[[str], Recipe]:
    """Return a recipe of the field with a network that tests can afford."""

    def field_recipe(name: str) -> Recipe:
        changes = FIELD_AT_TEST_SIZE[name].replace(", ", ",").split()
        return load_recipe(name, [f"network.{change}" for change in changes])

    return field_recipe


@pytest.fixture(scope="session")
def counted_field() -> list[FieldRow]:
    """The rows of ``reslite models --field``, counted once."""
    return list(field_rows())


@pytest.fixture
def measurement() -> Callable[..., Measurement]:
    """Make a measurement without samples; any of its values can be given."""

    def make(**values: Any) -> Measurement:
        usual: dict[str, Any] = {
            "run": "0123456789abcdef" * 2,
            "block": 0,
            "order": 0,
            "start": 0,
            "role": "reference",
            "file": "tiny_x2_int8.tflite",
            "sha256": "0" * 64,
            "format": "tflite",
            "precision": "int8",
            "network": "tiny",
            "scale": 2,
            "size": (48, 64),
            "device": "cpu",
            "machine": "A processor",
            "evidence": "measured",
            "runtime": "LiteRT 2.1",
            "when": "2026-12-01T14:05:09+00:00",
        }
        return Measurement(**{**usual, **values})

    return make
