"""Ranges from summaries, which hold a histogram, are checked against all values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.scales import Quantization
from quantize.observers import (
    BINS,
    OBSERVERS,
    Summary,
    least_squares_range,
    min_max_range,
    observe,
    percentile_range,
)
from quantize.ptq import as_image
from quantize.scale_classes import held_values
from runtime.errors import UserError

Values = NDArray[np.float32]


@st.composite
def activations(draw: st.DrawFn) -> Values:
    """Values with a bulk, a few outliers and, after a ReLU, many zeros."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.normal(draw(st.floats(-1, 1)), draw(st.floats(0.01, 3)), 4000)
    values[:20] *= draw(st.floats(1, 30))
    if draw(st.booleans()):
        values = np.maximum(values, 0)
    return values.astype(np.float32) * np.float32(2.0 ** draw(st.integers(-12, 12)))


def _summary(values: Values, parts: int = 1) -> Summary:
    first, *others = (Summary.of(torch.from_numpy(part)) for part in np.array_split(values, parts))
    for other in others:
        first = first.merged(other)
    return first


def _mean_squared_error(values: Values, low: float, high: float) -> float:
    """Return the error of 8 bits over [low, high], computed on the values one by one."""
    quantization = Quantization.of_range(low, high)
    real = values.astype(np.float64)
    integers = np.clip(np.rint(real / quantization.scale) + quantization.zero_point, -128, 127)
    restored = (integers - quantization.zero_point) * quantization.scale
    return float(np.mean((restored - real) ** 2))


@settings(deadline=None)
@given(values=activations(), parts=st.integers(1, 7))
def test_a_summary_keeps_extremes_and_counts_of_a_stream(values: Values, parts: int) -> None:
    summary = _summary(values, parts)

    assert (summary.low, summary.high) == (values.min(), values.max())
    assert summary.counts.shape == (2 * BINS,)
    expected, _ = np.histogram(values, 2 * BINS, (-summary.reach, summary.reach))
    # A value on the edge of two bins may be counted in either.
    assert np.abs(np.cumsum(summary.counts) - np.cumsum(expected)).max() <= 2
    assert summary.counts.sum() == values.size


@settings(deadline=None)
@given(values=activations(), order=st.permutations(range(5)))
def test_the_order_of_the_stream_does_not_matter(values: Values, order: list[int]) -> None:
    parts = [Summary.of(torch.from_numpy(part)) for part in np.array_split(values, 5)]
    one, other = parts[0], parts[order[0]]
    for index in range(1, 5):
        one, other = one.merged(parts[index]), other.merged(parts[order[index]])

    assert (one.low, one.high, one.reach) == (other.low, other.high, other.reach)
    np.testing.assert_array_equal(one.counts, other.counts)


@settings(deadline=None)
@given(values=activations(), percent=st.floats(0.01, 99.99))
def test_percentiles_are_numpys_to_one_bin(values: Values, percent: float) -> None:
    summary = _summary(values, 3)

    # Between two values of the sample any number is a percentile; numpy returns its ends.
    least = np.percentile(values, percent, method="lower")
    most = np.percentile(values, percent, method="higher")
    bin_width = summary.reach / BINS
    assert least - bin_width <= summary.percentile(percent) <= most + bin_width


def test_a_percentile_range_ignores_an_outlier_on_either_side() -> None:
    values = np.concatenate([np.linspace(-1, 2, 100_001), [-50, 80]]).astype(np.float32)

    low, high = percentile_range(_summary(values), 99.9)

    assert (low, high) == pytest.approx((-0.997, 1.997), abs=0.03)


@settings(deadline=None)
@given(values=activations())
def test_min_max_clips_nothing(values: Values) -> None:
    assert min_max_range(_summary(values)) == (values.min(), values.max())


@settings(deadline=None)
@given(values=activations())
def test_the_error_of_a_summary_is_that_of_the_values(values: Values) -> None:
    summary = _summary(values)
    quantization = Quantization.of_range(summary.low / 2, summary.high / 2)

    expected = _mean_squared_error(values, summary.low / 2, summary.high / 2)
    width = summary.reach / BINS
    assert summary.squared_error(quantization) == pytest.approx(expected, 0.1, width**2)


@settings(deadline=None)
@given(values=activations())
def test_the_more_clipping_counts_the_less_is_clipped(values: Values) -> None:
    summary = _summary(values)
    narrow, wide = least_squares_range(summary), least_squares_range(summary, clipping=1e9)

    full = Quantization.of_range(summary.low, summary.high)
    half = Quantization.of_range(summary.low / 2, summary.high / 2)
    assert summary.squared_error(full, clipping=8) == summary.squared_error(full)
    assert summary.squared_error(half, clipping=8) >= summary.squared_error(half)
    clipped = [np.count_nonzero((values < low) | (values > high)) for low, high in (narrow, wide)]
    assert clipped[1] <= clipped[0]


@settings(deadline=None)
@given(values=activations())
def test_least_squares_is_never_worse_than_min_max(values: Values) -> None:
    summary = _summary(values, 2)
    low, high = least_squares_range(summary)

    assert summary.low <= low <= 0 or low == summary.low
    assert 0 <= high <= summary.high or high == summary.high
    full = summary.squared_error(Quantization.of_range(*min_max_range(summary)))
    assert summary.squared_error(Quantization.of_range(low, high)) <= full
    # On the values themselves, up to the width of a bin.
    width = summary.reach / BINS
    on_values = _mean_squared_error(values, summary.low, summary.high)
    assert _mean_squared_error(values, low, high) <= 1.05 * on_values + width**2


def test_least_squares_is_near_the_best_clipping_of_a_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(0, 1, 400_000).astype(np.float32)
    errors = {end: _mean_squared_error(values, -end, end) for end in np.linspace(2.5, 5, 51)}

    low, high = least_squares_range(_summary(values))

    assert _mean_squared_error(values, low, high) <= 1.02 * min(errors.values())
    assert -low == pytest.approx(min(errors, key=lambda end: errors[end]), abs=0.4)


def test_zeros_alone_have_a_summary() -> None:
    summary = Summary.of(torch.zeros(5))

    assert (summary.low, summary.high) == (0, 0)
    assert all(observer(summary) == (0, 0) for observer in OBSERVERS.values())


def test_a_crop_of_zeros_does_not_coarsen_the_summary_of_the_next() -> None:
    values = torch.linspace(0, 1e-3, 1000)

    merged = Summary.of(torch.zeros(1000)).merged(Summary.of(values))

    assert merged.reach == Summary.of(values).reach < 2e-3
    assert merged.percentile(75) == pytest.approx(5e-4, rel=0.01)


def test_values_of_very_different_size_are_merged() -> None:
    small, large = Summary.of(torch.full((3,), -1e-30)), Summary.of(torch.tensor([1e20]))

    merged = large.merged(small)

    assert (merged.low, merged.high) == (np.float32(-1e-30), np.float32(1e20))
    assert merged.counts[BINS - 1] == 3


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(damage: float) -> None:
    with pytest.raises(UserError, match="not finite"):
        Summary.of(torch.tensor([0.5, damage]))


def test_every_activation_of_a_file_is_observed(
    graph: Graph, crops: list[NDArray[np.uint8]]
) -> None:
    lowered = lower(graph, QUANTIZED_FORM)
    images = [as_image(crop) for crop in crops]

    ranges = {name: min_max_range(one) for name, one in observe(lowered, images).items()}

    assert set(ranges) == set(held_values(lowered)) - {"image/ones"}
    pixels = np.concatenate([crop.ravel() for crop in crops])
    assert ranges["image"] == pytest.approx((pixels.min() / 255, pixels.max() / 255))
    with torch.no_grad():
        features = torch.cat([_entry(graph, image).flatten() for image in images])
    assert ranges["conv2d"] == pytest.approx((float(features.min()), float(features.max())), 1e-4)


def test_what_a_rewrite_added_is_observed_in_the_place_of_what_is_gone() -> None:
    nodes = (
        Node("Sigmoid", "copy", ("image",), ("copy",)),
        Node("Relu", "relu", ("copy",), ("restored_image",)),
    )
    graph = Graph(nodes, {}, origins={"copy": "image"})
    image = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)

    beside = observe(graph, [image])
    instead = observe(dataclasses.replace(graph, origins={"copy": "gone"}), [image])

    assert beside.keys() == {"image", "restored_image"} and beside["image"].high == 1
    assert instead.keys() == {"image", "gone", "restored_image"} and instead["gone"].low == 0.5


def _entry(graph: Graph, image: torch.Tensor) -> torch.Tensor:
    """Compute the first convolution with torch alone."""
    shift, conv = graph.nodes[:2]
    means = torch.from_numpy(graph.constants[shift.inputs[1]])
    weight, bias = (torch.from_numpy(graph.constants[name]) for name in conv.inputs[1:])
    return torch.nn.functional.conv2d(image - means, weight, bias, padding=1)


@settings(deadline=None, max_examples=5)
@given(split=st.integers(1, 7))
def test_more_crops_only_widen_what_was_seen(
    split: int, graph: Graph, crops: list[NDArray[np.uint8]]
) -> None:
    lowered = lower(graph, QUANTIZED_FORM)
    images = [as_image(crop) for crop in crops]
    some, every = observe(lowered, images[:split]), observe(lowered, images)

    for name, summary in some.items():
        assert every[name].low <= summary.low
        assert every[name].high >= summary.high
