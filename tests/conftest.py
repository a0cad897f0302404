"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from training.data.pictures import data_folder

# Tests do not assert how long anything takes: machines differ and do other things meanwhile.
settings.register_profile("reslite", deadline=None)
settings.load_profile("reslite")


@pytest.fixture(scope="session")
def standard_data() -> Path:
    """The folder of the standard pictures; the test is skipped where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("set RESLITE_DATA to the folder with set5/, set14/, b100/, train/ and valid/")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A 512 × 512 RGB photograph that ships with scikit-image."""
    from skimage import data

    picture: NDArray[np.uint8] = data.astronaut()
    return picture
