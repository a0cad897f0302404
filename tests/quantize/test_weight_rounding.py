"""Weights rounded up or down: errors cancel, and pictures lose less."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from export.execution import activations_of, execute
from export.graph import Array, Graph
from export.integers import quantized_weight, weight_scales
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.gains import with_gains
from export.rewrites.overflow import with_overflow
from export.rewrites.roundings import (
    as_offsets,
    in_quanta,
    kernel_forms,
    rounded_kernel,
    with_roundings,
)
from export.scales import ScaleTable
from quantize.calibration import calibration_crops
from quantize.ptq import as_image
from quantize.scale_classes import Concatenations
from quantize.weight_rounding import input_covariances, rounded_up, rounding_noise
from training.tasks import SUPER_RESOLUTION

Crops = list[NDArray[np.uint8]]

_kernels = arrays(np.float32, (2, 3, 2, 2), elements=st.floats(-4, 4, width=32))


@pytest.fixture(scope="module")
def table(quantized: Callable[[Concatenations], ScaleTable]) -> ScaleTable:
    """The scales of the small network, with roundings."""
    return quantized("tied")


def _chosen(kernel: Array, covariance: torch.Tensor) -> NDArray[np.float64]:
    """Return the errors of the chosen integers, in quanta, output × weights."""
    quanta = in_quanta(kernel)
    chosen = np.floor(quanta) + rounded_up(kernel, covariance)
    errors: NDArray[np.float64] = (chosen - quanta).reshape(len(kernel), -1).astype(np.float64)
    return errors


@given(_kernels, st.lists(st.floats(0.1, 10), min_size=12, max_size=12))
# Inputs that calibration pictures never show.
@example(np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(np.float32), [0.0] * 12)
def test_inputs_that_know_nothing_of_each_other_leave_the_nearest_integers(
    kernel: Array, variances: list[float]
) -> None:
    covariance = torch.diag(torch.tensor(variances, dtype=torch.float64))[None]

    errors = _chosen(kernel, covariance)

    assert np.abs(errors).max() <= 0.5 + 1e-5


def test_errors_of_inputs_that_are_one_cancel() -> None:
    kernel = np.random.default_rng(0).normal(size=(200, 3, 2, 2)).astype(np.float32)
    quanta = in_quanta(kernel)
    to_nearest = (np.rint(quanta) - quanta).reshape(200, 12).sum(1)

    errors = _chosen(kernel, torch.ones(1, 12, 12, dtype=torch.float64))

    assert np.abs(errors).max() <= 1
    assert np.square(errors.sum(1)).mean() < np.square(to_nearest).mean() / 5


@given(_kernels, st.integers(0, 2**32 - 1))
def test_the_largest_weight_stays_the_scale(kernel: Array, seed: int) -> None:
    mixing = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed)).double()

    quanta = in_quanta(kernel)
    chosen = np.floor(quanta) + rounded_up(kernel, (mixing @ mixing.mT)[None])

    largest = np.abs(quanta) > 126.5
    assert np.array_equal(chosen[largest], np.rint(quanta[largest]))
    assert np.abs(chosen).max() <= 127


def test_scales_stay_where_the_errors_of_many_inputs_that_are_alike_add_up() -> None:
    random = np.random.default_rng(0)
    kernel = random.normal(size=(4000, 4, 3, 3)).astype(np.float32)
    alike = torch.from_numpy(1 + 0.05 * random.normal(size=(36, 1000)))

    up = rounded_up(kernel, (alike @ alike.mT)[None] / 1000)

    found = weight_scales(rounded_kernel(kernel, up))
    np.testing.assert_allclose(found, weight_scales(kernel), rtol=1e-3)


def test_groups_are_rounded_each_for_its_own_inputs() -> None:
    kernel = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    alike, unlike = torch.ones(3, 3).double(), torch.eye(3).double()

    kernel[:, 0] = np.abs(kernel).max()  # One scale for all, so that halves can be compared.

    both = rounded_up(kernel, torch.stack([alike, unlike]))

    assert np.array_equal(both[:2], rounded_up(kernel[:2], alike[None]))
    assert np.array_equal(both[2:], rounded_up(kernel[2:], unlike[None]))


def test_covariances_are_those_of_the_windows_of_all_that_a_kernel_reads(
    graph: Graph, table: ScaleTable, crops: Crops
) -> None:
    lowered = with_overflow(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.overflow)
    images = [as_image(crop).double() for crop in crops[:2]]
    name = next(  # A kernel that several convolutions share.
        kernel
        for kernel in (node.inputs[1] for node in lowered.nodes if node.op == "Conv")
        if sum(node.inputs[1] == kernel for node in lowered.nodes if node.op == "Conv") > 1
        and lowered.constants[kernel].shape[-1] == 3
    )
    readers = [node for node in lowered.nodes if node.op == "Conv" and node.inputs[1] == name]
    windows: list[NDArray[np.float64]] = []

    for image in images:
        values = activations_of(lowered, image)
        for node in readers:
            padded = np.pad(values[node.inputs[0]][0].numpy(), ((0, 0), (1, 1), (1, 1)))
            view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
            windows.append(view.transpose(1, 2, 0, 3, 4).reshape(-1, len(padded) * 9))
    whole = np.cov(np.concatenate(windows), rowvar=False, bias=True)

    found = input_covariances(lowered, [name], images)[name].numpy()

    assert len(windows) == 2 * len(readers)
    n = found.shape[1]
    for group, block in enumerate(found):
        part = slice(group * n, (group + 1) * n)
        assert np.allclose(block, whole[part, part], atol=1e-9)


def test_noise_is_what_rounding_a_kernel_makes(
    graph: Graph, table: ScaleTable, crops: Crops
) -> None:
    lowered = with_overflow(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.overflow)
    images = [as_image(crop).double() for crop in crops] * 8  # Each time with other signs.
    noise = rounding_noise(lowered, images)
    name = max(noise, key=lambda kernel: noise[kernel])
    kernel = lowered.constants[name]
    scales = weight_scales(kernel).reshape(-1, 1, 1, 1)
    constants = {**lowered.constants, name: quantized_weight(kernel) * scales}
    nearest = dataclasses.replace(lowered, constants=constants)

    made = sum(
        float((execute(nearest, image) - execute(lowered, image)).square().sum())
        for image in images
    )

    assert noise[name] == pytest.approx(made, rel=0.5)
    assert noise["append_ones.weight"] == 0  # Its weights are integers of their scale.


def test_roundings_help_on_pictures_they_were_not_chosen_on(
    graph: Graph, table: ScaleTable, photographs: list[Path]
) -> None:
    others = calibration_crops(photographs[8:], SUPER_RESOLUTION, 2, count=6, size=40, seed=5)
    exact = with_overflow(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.overflow)
    forms = [name for kernel in table.roundings for name in kernel_forms(exact)[kernel]]
    kernels = {name: exact.constants[name] for name in forms}
    to_nearest = {
        name: quantized_weight(kernel) * weight_scales(kernel).reshape(-1, 1, 1, 1)
        for name, kernel in kernels.items()
    }
    nearest = dataclasses.replace(exact, constants={**exact.constants, **to_nearest})

    def error(rounded: Graph) -> float:
        """Return the mean square of the change, without that of means, which biases correct."""
        changes = [
            execute(rounded, image) - execute(exact, image) for image in map(as_image, others)
        ]
        return float(torch.stack([one.var((2, 3)) for one in changes]).mean())

    assert kernels
    assert error(with_roundings(exact, table.roundings)) < 0.6 * error(nearest)


def test_kernels_are_chosen_by_the_noise_that_rounding_them_makes(
    graph: Graph, table: ScaleTable, crops: Crops
) -> None:
    exact = with_overflow(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.overflow)
    noise = rounding_noise(exact, [as_image(crop).double() for crop in crops])

    least = sum(noise.values()) / 100
    shown = {name for name, made in noise.items() if made > least}
    assert set(table.roundings) == {exact.origin(name) for name in shown} <= set(graph.constants)
    forms = kernel_forms(exact)
    for kernel, texts in table.roundings.items():
        for name, text in zip(forms[kernel], texts, strict=True):
            assert as_offsets(text, exact.constants[name].shape).any()
