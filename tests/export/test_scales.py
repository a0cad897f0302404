"""The table of scales, its file, and the integers that follow from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from export.graph import Graph, Node
from export.scales import (
    PIXELS,
    Quantization,
    ScaleTable,
    bias_scales,
    output_axis,
    quantized_bias,
    quantized_weight,
    read_scale_table,
    weight_scales,
    with_requantization,
)
from runtime.errors import UserError
from runtime.manifest import Calibration

_reals = st.floats(-1e4, 1e4, width=32)
_kernels = arrays(
    np.float32,
    array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.floats(-4, 4, width=32),
)

TABLE = ScaleTable(
    model="carn-m",
    scale=4,
    weights_sha256="ab" * 32,
    method="min-max",
    activations={"image": PIXELS, "cat": Quantization(0.02, -3), "relu": Quantization(0.01, -128)},
    requantized=(("relu", "cat"),),
    calibration=Calibration(("div2k_0001.webp", "größe [1,  2].png"), "cd" * 32),
    gains={"relu": 0.25, "conv": (1.0, 0.5, 16.0)},
    corrections={"relu": (-0.0012, 3e-05, 1.0), "cat": (0.0,)},
)


@given(low=_reals, high=_reals)
def test_a_range_is_covered_by_256_values_with_zero_among_them(low: float, high: float) -> None:
    assume(low <= high)
    found = Quantization.of_range(low, high)
    least, greatest = (found.scale * (q - found.zero_point) for q in (-128, 127))
    # The zero point is rounded, so that each end may be half a quantum short.
    assert least <= min(low, 0) + 0.501 * found.scale
    assert greatest >= max(high, 0) - 0.501 * found.scale
    if high - low > 1e-5:
        assert greatest - least <= 1.001 * (max(high, 0) - min(low, 0))


@given(low=_reals, high=_reals, fraction=st.floats(0, 1))
def test_a_real_number_in_the_range_moves_by_half_a_quantum_or_less(
    low: float, high: float, fraction: float
) -> None:
    assume(low <= high)
    found, real = Quantization.of_range(low, high), low + fraction * (high - low)
    # torch's own fake quantization is the judge.
    rounded = torch.fake_quantize_per_tensor_affine(
        torch.tensor(real), found.scale, found.zero_point, -128, 127
    )
    assert abs(rounded.item() - real) <= 1.01 * found.scale
    inside = found.scale * (-128 - found.zero_point) <= real <= found.scale * 127
    if inside and real <= found.scale * (127 - found.zero_point):
        assert abs(rounded.item() - real) <= 0.51 * found.scale


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0, 255, 1, -128),
        (-128, 127, 1, 0),
        (-1, 3, 4 / 255, -64),
        (-255, 0, 1, 127),
        (0, 0, 1 / 255, -128),
        (0, 1e-7, 1 / 255, -128),
    ],
)
def test_ranges_done_by_hand(low: float, high: float, scale: float, zero_point: int) -> None:
    found = Quantization.of_range(low, high)
    assert found.scale == pytest.approx(scale, rel=1e-6, abs=1e-9)
    assert found.zero_point == zero_point and found.scale > 0


def test_pixels_are_the_256_levels() -> None:
    levels = np.arange(256)
    assert np.allclose(PIXELS.scale * levels, levels / 255, atol=1e-7)
    assert PIXELS.zero_point == -128


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [(0.0, 0), (-1.0, 0), (float("nan"), 0), (float("inf"), 0), (0.1, 128), (0.1, -129)],
)
def test_what_fits_no_8_bits_is_no_quantization(scale: float, zero_point: int) -> None:
    with pytest.raises(ValueError, match="fit no 8 bits"):
        Quantization(scale, zero_point)


@given(kernel=_kernels, axis=st.sampled_from([0, 1]))
def test_a_quantized_kernel_is_near_the_real_one(kernel: NDArray[np.float32], axis: int) -> None:
    scales, integers = weight_scales(kernel, axis), quantized_weight(kernel, axis)
    assert scales.shape == (kernel.shape[axis],) and (scales > 0).all()
    assert integers.dtype == np.int8 and integers.min() >= -127
    shape = [-1 if index == axis else 1 for index in range(4)]
    real = integers * scales.astype(np.float64).reshape(shape)
    assert (np.abs(real - kernel) <= 0.5001 * scales.reshape(shape)).all()


@given(kernel=_kernels)
def test_the_largest_weight_of_a_channel_uses_the_whole_range(kernel: NDArray[np.float32]) -> None:
    largest = np.abs(kernel).max(axis=(1, 2, 3))
    used = np.abs(quantized_weight(kernel).astype(int)).max(axis=(1, 2, 3))
    # Weights below 1e-30 have no scale that is a normal float32 number; they count as none.
    assert (used[largest > max(1e-30, 1e-3 * largest.max())] == 127).all()
    assert (used[largest == 0] == 0).all()


def test_a_kernel_done_by_hand() -> None:
    kernel = np.float32([[1.27, -0.63], [-0.0254, 0.0127]]).reshape(2, 2, 1, 1)
    assert weight_scales(kernel) == pytest.approx([0.01, 0.0002])
    assert quantized_weight(kernel).reshape(2, 2).tolist() == [[127, -63], [-127, 64]]


@given(kernel=_kernels, data=st.data())
def test_a_quantized_bias_is_near_the_real_one(kernel: NDArray[np.float32], data: Any) -> None:
    bias = data.draw(arrays(np.float32, kernel.shape[0], elements=st.floats(-4, 4, width=32)))
    source = Quantization(0.02, 5)
    scales, integers = bias_scales(kernel, source), quantized_bias(bias, kernel, source)
    assert np.allclose(scales, weight_scales(kernel).astype(np.float64) * 0.02, rtol=1e-12)
    assert integers.dtype == np.int32
    fits = np.abs(bias / scales) < 2**31 - 1
    assert (np.abs(integers * scales - bias)[fits] <= 0.5001 * scales[fits]).all()


def test_a_bias_that_fits_no_32_bits_is_saturated() -> None:
    kernel, source = np.full((2, 1, 1, 1), 1e-6, np.float32), Quantization(1e-6, 0)
    found = quantized_bias(np.float32([3, -3]), kernel, source)
    assert found.tolist() == [2**31 - 1, -(2**31 - 1)]


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_integer_arithmetic_gives_the_sums_of_the_rounded_numbers(data: Any) -> None:
    """Accumulate as an integer kernel does; torch convolves the rounded reals beside it."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    source = Quantization.of_range(-data.draw(st.floats(0, 2)), data.draw(st.floats(0.1, 2)))
    kernel = random.normal(0, 0.2, (3, 4, 3, 3)).astype(np.float32)
    bias = random.normal(0, 0.2, 3).astype(np.float32)
    pixels = random.integers(-128, 128, (1, 4, 5, 5))
    integers = torch.nn.functional.conv2d(
        torch.from_numpy(pixels - source.zero_point).double(),
        torch.from_numpy(quantized_weight(kernel)).double(),
        torch.from_numpy(quantized_bias(bias, kernel, source)).double(),
    )
    scales = torch.from_numpy(bias_scales(kernel, source)).reshape(1, 3, 1, 1)
    rounded = quantized_weight(kernel) * weight_scales(kernel).reshape(3, 1, 1, 1)
    real = torch.nn.functional.conv2d(
        torch.from_numpy(source.scale * (pixels - source.zero_point)).float(),
        torch.from_numpy(rounded.astype(np.float32)),
        torch.from_numpy(bias),
    )
    torch.testing.assert_close((integers * scales).float(), real, atol=1e-3, rtol=1e-4)


def test_kernels_of_transposed_convolutions_count_outputs_on_their_second_axis() -> None:
    attributes = {"stride": 2, "groups": 1}
    transposed = Node("ConvTranspose", "up", ("image", "w", "b"), ("large",), attributes)
    plain = Node("Conv", "conv", ("image", "w", "b"), ("features",), {"groups": 1})
    assert (output_axis(transposed), output_axis(plain)) == (1, 0)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    TABLE.write(path)
    assert read_scale_table(path) == TABLE
    assert (
        "größe [1,  2].png"
        in json.loads(path.read_text(encoding="utf-8"))["calibration"]["pictures"]
    )


@settings(max_examples=20)
@given(low=_reals, high=_reals)
def test_numbers_survive_the_file_to_the_bit(
    low: float, high: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(low <= high)
    quantization = Quantization.of_range(low, high)
    table = dataclasses.replace(TABLE, activations={"relu": quantization})
    path = tmp_path_factory.mktemp("scales") / "scales.json"
    table.write(path)
    assert read_scale_table(path).of("relu") == quantization


def test_corrections_take_one_line_each(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "scales.json")

    lines = (tmp_path / "scales.json").read_text(encoding="utf-8").splitlines()
    assert '  "relu": [ -0.0012, 3e-05, 1.0 ],' in lines


def test_a_value_that_a_table_does_not_cover_is_named_with_the_remedy() -> None:
    assert TABLE.of("relu") == Quantization(0.01, -128)
    with pytest.raises(UserError, match=r"carn-m ×4 do not cover 'conv2d_7'; .*reslite quantize"):
        TABLE.of("conv2d_7")


def test_a_missing_table_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such table.*'reslite quantize'"):
        read_scale_table(tmp_path / "none.json")


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {name: value for name, value in content.items() if name != key}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: [content],
        lambda content: None,
        lambda content: {**content, "surplus": 1},
        lambda content: {**content, "activations": ["image"]},
        lambda content: {**content, "activations": {"image": {"scale": 0.1}}},
        lambda content: {**content, "activations": {"image": {"scale": -0.1, "zero_point": 0}}},
        lambda content: {**content, "activations": {"image": {"scale": "a", "zero_point": 0}}},
        lambda content: {**content, "activations": {"image": {"scale": 0.1, "zero_point": 300}}},
        lambda content: {**content, "requantized": [["relu", "cat", "more"]]},
        lambda content: {**content, "gains": {"relu": 0}},
        lambda content: {**content, "gains": {"relu": [1, -2]}},
        lambda content: {**content, "gains": {"relu": "much"}},
        lambda content: {**content, "calibration": {"pictures": []}},
        _without("calibration"),
        _without("activations"),
        _without("model"),
    ],
)
def test_a_damaged_table_is_refused(damage: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    TABLE.write(path)
    path.write_text(json.dumps(damage(json.loads(path.read_text(encoding="utf-8")))))
    with pytest.raises(UserError, match=r"scales\.json: not a table of scales"):
        read_scale_table(path)


@pytest.mark.parametrize("bytes_kept", [0, 1, 40])
def test_a_truncated_table_is_refused(bytes_kept: int, tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    TABLE.write(path)
    path.write_bytes(path.read_bytes()[:bytes_kept])
    with pytest.raises(UserError, match="not a table of scales"):
        read_scale_table(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scales.json").write_bytes(content)
    with pytest.raises(UserError, match="not a table of scales"):
        read_scale_table(tmp_path / "scales.json")
    with pytest.raises(UserError, match="not a table of scales"):
        read_scale_table(tmp_path)


def _with_two_concats(second_scale: Quantization) -> tuple[Graph, ScaleTable]:
    graph = Graph(
        (
            Node("Relu", "relu", ("image",), ("relu",)),
            Node("Concat", "one", ("image", "relu"), ("cat",)),
            Node("Concat", "two", ("relu", "cat"), ("restored_image",)),
        ),
        {},
    )
    activations = {**TABLE.activations, "restored_image": second_scale}
    pairs = (("relu", "cat"), ("relu", "restored_image"))
    return graph, dataclasses.replace(TABLE, activations=activations, requantized=pairs)


def test_a_requantized_input_gets_a_node_and_the_scale_of_its_concatenation() -> None:
    graph, table = _with_two_concats(Quantization(0.5, 0))
    changed = with_requantization(graph, table)
    made = [node for node in changed.nodes if node.op == "Requantize"]
    assert [node.inputs for node in made] == [("relu",), ("relu",)]
    scales = [table.of(changed.origin(node.output)) for node in made]
    assert scales == [table.of("cat"), Quantization(0.5, 0)]
    concats = [node for node in changed.nodes if node.op == "Concat"]
    assert concats[0].inputs == ("image", made[0].output)
    assert concats[1].inputs == (made[1].output, "cat")


def test_two_concatenations_of_one_scale_share_a_requantized_input() -> None:
    graph, table = _with_two_concats(TABLE.of("cat"))
    changed = with_requantization(graph, table)
    assert changed.operators() == {"Concat": 2, "Relu": 1, "Requantize": 1}


def test_without_pairs_nothing_is_requantized() -> None:
    graph, table = _with_two_concats(TABLE.of("cat"))
    assert with_requantization(graph, dataclasses.replace(table, requantized=())) == graph
