"""A small network with the outputs of a trained one, and photographs to calibrate it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from export.capture.torch_capture import capture
from export.graph import Graph
from export.scales import ScaleTable
from quantize.calibration import calibration_crops, scikit_image_pictures
from quantize.ptq import quantize_network
from quantize.scale_classes import Concatenations
from runtime.manifest import Calibration
from training.networks.carn import AtScale, Carn, CarnConfig
from training.tasks import SUPER_RESOLUTION


@pytest.fixture(scope="session")
def network() -> AtScale:
    """A CARN-M ×2 of 8 channels with seeded weights whose output is near its enlarged input."""
    torch.manual_seed(3)
    config = CarnConfig(
        channels=8, blocks=2, units=2, groups=2, efficient=True, recursive=True, scales=(2,)
    )
    module = AtScale(Carn(config), 2).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 1.8  # Spreads outputs over most of [0, 1], as training does.
    return module


@pytest.fixture(scope="session")
def graph(network: AtScale) -> Graph:
    """The captured graph of ``network``."""
    return capture(network)


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    """The photographs inside scikit-image."""
    return scikit_image_pictures()


@pytest.fixture(scope="session")
def crops(photographs: list[Path]) -> list[NDArray[np.uint8]]:
    """Eight low-resolution crops of 16 × 16 for ×2."""
    return calibration_crops(photographs, SUPER_RESOLUTION, 2, count=8, size=16)


@pytest.fixture(scope="session")
def quantized(
    graph: Graph, crops: list[NDArray[np.uint8]]
) -> Callable[[Concatenations], ScaleTable]:
    """Return a function that finds the network's scales, with concatenations of one kind."""

    def find(concatenations: Concatenations) -> ScaleTable:
        return quantize_network(
            graph,
            crops,
            model="small",
            scale=2,
            weights_sha256="",
            calibration=Calibration((), ""),
            concatenations=concatenations,
        )

    return find


@pytest.fixture
def noise_folder(tmp_path: Path) -> Path:
    """A folder with three pictures of noise, 40 × 50."""
    random = np.random.default_rng(0)
    for index in range(3):
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"noise{index}.png")
    return tmp_path
