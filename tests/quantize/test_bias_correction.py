"""Corrected biases keep the means of channels, and pictures lose less."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.execution import activations_of, execute
from export.graph import Graph
from export.lowering import int8_form, lower
from export.profiles import PROFILES, QUANTIZED_FORM, Profile
from export.rewrites.corrections import with_corrected_biases
from export.rewrites.gains import with_gains
from export.rewrites.overflow import with_overflow
from export.rewrites.requantization import with_requantization
from export.scales import ScaleTable
from quantize.bias_correction import bias_corrections
from quantize.calibration import calibration_crops
from quantize.ptq import as_image
from quantize.scale_classes import Concatenations
from quantize.simulator import Simulator, run_int8
from runtime.errors import UserError
from training.tasks import SUPER_RESOLUTION

Crops = list[NDArray[np.uint8]]


@pytest.fixture(scope="module", params=["tied", "requantized"])
def table(
    request: pytest.FixtureRequest, quantized: Callable[[Concatenations], ScaleTable]
) -> ScaleTable:
    """The scales of the small network, with corrections."""
    return quantized(request.param)


def _corrected(graph: Graph, table: ScaleTable) -> Graph:
    return with_corrected_biases(int8_form(graph, table), table)


def _values(graph: Graph, table: ScaleTable | None, images: Tensor) -> dict[str, Tensor]:
    """Return the output of every convolution, computed in int8 if there is a table."""
    values: dict[str, Tensor] = {}

    class Remembering(Simulator):
        def activation(self, name: str, value: Tensor) -> Tensor:
            return super().activation(name, self.before_relu(name, value))

        def before_relu(self, name: str, value: Tensor) -> Tensor:
            values[name] = value
            return value

    with torch.no_grad():
        if table is None:
            return activations_of(graph, images, hidden=True)
        Remembering(with_requantization(graph, table), table)(images)
    return values


def test_every_channel_keeps_its_mean_where_a_relu_lets_it_through(
    graph: Graph, table: ScaleTable, crops: Crops
) -> None:
    images = torch.cat([as_image(crop) for crop in crops])
    exact = with_overflow(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.overflow)
    real = _values(exact, None, images)
    rectified = {node.output for node in exact.nodes if exact.fused_relu(node)}

    def largest_shift(int8: Graph) -> float:
        """Return the largest shift of a channel's mean, over all convolutions."""
        found, shifts = _values(int8, table, images), []
        for name in table.corrections:
            counted = real[name] > 0 if name in rectified else torch.ones_like(real[name])
            shift = ((found[name] - real[name]) * counted).mean((0, 2, 3))
            shifts.append(float(shift.abs().max()))
        return max(shifts)

    # What is left is the rounding of the bias itself.
    assert largest_shift(_corrected(graph, table)) < 2e-4
    assert largest_shift(int8_form(graph, table)) > 1e-3


def test_corrections_help_on_pictures_they_were_not_measured_on(
    graph: Graph, table: ScaleTable, photographs: list[Path]
) -> None:
    others = calibration_crops(photographs[8:], SUPER_RESOLUTION, 2, count=6, size=40, seed=5)
    plain = with_requantization(int8_form(graph, table), table)
    corrected = with_requantization(_corrected(graph, table), table)

    def errors(int8: Graph) -> Tensor:
        differences = [
            run_int8(int8, table, image) - execute(graph, image).clamp(0, 1)
            for image in map(as_image, others)
        ]
        return torch.cat(differences)

    before, after = errors(plain), errors(corrected)
    assert after.square().mean() < before.square().mean()
    # What each channel of each picture is shifted by.
    assert after.mean((2, 3)).square().mean() < 0.7 * before.mean((2, 3)).square().mean()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_each_channel_of_every_profile_is_corrected_by_its_own_shift(
    graph: Graph, table: ScaleTable, profile: Profile, crops: Crops
) -> None:
    corrected, image = _corrected(graph, table), as_image(crops[0])

    difference = execute(lower(corrected, profile.further_int8), image) - execute(corrected, image)

    assert float(difference.abs().max()) < 1e-5


def test_convolutions_that_share_weights_are_corrected_for_their_own_inputs(
    graph: Graph, table: ScaleTable
) -> None:
    corrected = _corrected(graph, table)
    uses: dict[str, list[str]] = {}
    for node in corrected.nodes:
        if node.op == "Conv":
            uses.setdefault(node.inputs[1], []).append(node.inputs[2])

    shared = [biases for biases in uses.values() if len(biases) > 1]
    assert shared  # The network is recursive.
    assert all(len(set(biases)) == len(biases) for biases in shared)


def test_the_channel_of_ones_stays_exact(graph: Graph, table: ScaleTable) -> None:
    corrected = _corrected(graph, table)

    assert np.array_equal(corrected.constants["append_ones.bias"], [0, 0, 0, 1] * 2)
    assert {"image", "image/ones"}.isdisjoint(table.corrections)


def test_pictures_of_different_sizes_are_cut_to_the_smallest(
    graph: Graph, table: ScaleTable, crops: Crops
) -> None:
    lowered = with_overflow(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.overflow)
    images = [as_image(crop) for crop in crops[:3]]
    uneven = [images[0], images[1][:, :, :12], images[2][:, :, :, :9]]

    assert bias_corrections(lowered, table, uneven) == bias_corrections(
        lowered, table, [image[:, :, :12, :9] for image in images]
    )


def test_without_corrections_a_graph_stays_as_it_is(graph: Graph, table: ScaleTable) -> None:
    lowered = lower(graph, QUANTIZED_FORM)

    assert with_corrected_biases(lowered, dataclasses.replace(table, corrections={})) == lowered


def test_corrections_of_another_network_are_refused(graph: Graph, table: ScaleTable) -> None:
    value, shifts = next(iter(table.corrections.items()))
    short = dataclasses.replace(table, corrections={value: shifts[1:]})
    with pytest.raises(UserError, match=rf"correct {len(shifts) - 1} channels of '{value}'"):
        _corrected(graph, short)
