"""Tuning: int8 comes nearer to the float network, and the table holds all that was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.capture.torch_capture import capture
from export.execution import execute
from export.graph import Graph
from export.integers import quantized_weight, weight_scales
from export.lowering import int8_form
from export.rewrites.corrections import with_corrected_biases
from export.rewrites.requantization import with_requantization
from export.rewrites.roundings import kernel_forms
from export.scales import ScaleTable, read_scale_table
from quantize.calibration import calibration_crops, scikit_image_pictures
from quantize.ptq import as_image, quantize_network
from quantize.simulator import run_int8
from quantize.tuning import Limit
from runtime.manifest import Calibration
from training.tasks import SUPER_RESOLUTION


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A network whose channels are bent, of which some reach ten times as far as others."""
    torch.manual_seed(0)
    widths = [3, 12, 12, 12, 12, 12]
    layers = [
        layer
        for inputs, outputs in pairwise(widths)
        for layer in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.PReLU(outputs))
    ]
    module = nn.Sequential(*layers[:-1], nn.PixelShuffle(2))
    with torch.no_grad():
        for layer in module:
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 1.6 * 10 ** torch.linspace(-0.5, 0.5, 12)[:, None, None, None]
        module[-2].weight.div_(10 ** torch.linspace(-0.5, 0.5, 12)[:, None, None, None])
        module[-2].bias.add_(0.5)
    return capture(module.eval())


@pytest.fixture(scope="module")
def table(graph: Graph) -> Callable[[Limit | None], ScaleTable]:
    crops = calibration_crops(scikit_image_pictures(), SUPER_RESOLUTION, 2, count=8, size=32)

    def find(limit: Limit | None) -> ScaleTable:
        return quantize_network(
            graph,
            crops,
            model="bent",
            scale=2,
            weights_sha256="",
            calibration=Calibration((), ""),
            tuning=limit,
        )

    return find


@pytest.fixture(scope="module")
def tuned(table: Callable[[Limit | None], ScaleTable]) -> ScaleTable:
    """A table after sixty steps."""
    return table(Limit(minutes=5, steps=60))


def _form(graph: Graph, table: ScaleTable) -> Graph:
    return with_requantization(with_corrected_biases(int8_form(graph, table), table), table)


def _psnr(graph: Graph, table: ScaleTable, pictures: list[Tensor]) -> float:
    errors = [
        run_int8(_form(graph, table), table, one).sub(execute(graph, one).clamp(0, 1)).square()
        for one in pictures
    ]
    return float(-10 * torch.stack([one.mean() for one in errors]).mean().log10())


def test_pictures_that_were_not_seen_come_nearer_to_the_float_network(
    graph: Graph, table: Callable[[Limit | None], ScaleTable], tuned: ScaleTable
) -> None:
    others = calibration_crops(scikit_image_pictures(), SUPER_RESOLUTION, 2, 8, 32, seed=7)
    pictures = [as_image(one) for one in others]

    assert _psnr(graph, tuned, pictures) > _psnr(graph, table(None), pictures) + 0.5


def test_the_method_tells_how_long_it_was_tuned(tuned: ScaleTable) -> None:
    assert tuned.method.endswith("tuned in 60 steps")


def test_a_written_table_holds_all_that_was_trained(
    graph: Graph, tuned: ScaleTable, tmp_path: Path
) -> None:
    tuned.write(tmp_path / "table.json")
    read = read_scale_table(tmp_path / "table.json")
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    assert read == tuned
    assert torch.equal(
        run_int8(_form(graph, read), read, image), run_int8(_form(graph, tuned), tuned, image)
    )


def test_kernels_keep_their_scales_and_weights_move(graph: Graph, tuned: ScaleTable) -> None:
    before = int8_form(graph, dataclasses.replace(tuned, roundings={}))
    after = int8_form(graph, tuned)
    differ = 0
    for kernel, names in kernel_forms(before).items():
        for old, new in zip(names, kernel_forms(after)[kernel], strict=True):
            was, now = before.constants[old], after.constants[new]
            assert np.allclose(weight_scales(was), weight_scales(now), rtol=1e-6)
            differ += int((quantized_weight(now) != quantized_weight(was)).sum())

    assert differ > 100
