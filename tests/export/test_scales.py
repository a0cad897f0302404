"""The table of scales and its file."""

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

from export.scales import PIXELS, Quantization, ScaleTable, read_scale_table
from runtime.errors import UserError
from runtime.manifest import Calibration

_reals = st.floats(-1e4, 1e4, width=32)

TABLE = ScaleTable(
    model="carn-m",
    scale=4,
    weights_sha256="ab" * 32,
    method="min-max",
    activations={"image": PIXELS, "cat": Quantization(0.02, -3), "relu": Quantization(0.01, -128)},
    requantized=(("relu", "cat"),),
    calibration=Calibration(("div2k_0001.webp", "größe [1,  2].png"), "cd" * 32),
    gains={"relu": 0.25, "conv": (1.0, 0.5, 16.0)},
    roundings={"conv.weight": ("gYA=",)},
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
    with pytest.raises(ValueError, match="expected a positive scale and a zero point in"):
        Quantization(scale, zero_point)


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


def test_a_table_of_an_older_reslite_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    TABLE.write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["schema"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"schema 1 found, 2 expected .* run 'reslite quantize'"):
        read_scale_table(path)


def test_corrections_take_one_line_each(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "scales.json")

    lines = (tmp_path / "scales.json").read_text(encoding="utf-8").splitlines()
    assert '  "relu": [-0.0012, 3e-05, 1.0],' in lines


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
        lambda content: {**content, "roundings": {"conv.weight": "gYA="}},
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
    with pytest.raises(UserError, match=r"scales\.json: damaged .*reslite quantize"):
        read_scale_table(path)


@pytest.mark.parametrize("bytes_kept", [0, 1, 40])
def test_a_truncated_table_is_refused(bytes_kept: int, tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    TABLE.write(path)
    path.write_bytes(path.read_bytes()[:bytes_kept])
    with pytest.raises(UserError, match="damaged"):
        read_scale_table(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scales.json").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_scale_table(tmp_path / "scales.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_scale_table(tmp_path)
