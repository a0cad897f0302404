"""Profiles of the runtimes, joined to a file's operators; MultAdds against the graph's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices.litert_profile import Operator, Step, executed_order, joined
from benchmarks.layers import Layer, Profile, kinds_of, layers_of
from benchmarks.report.layer_table import profile_text
from runtime.errors import UserError
from runtime.manifest import Artifact


def _operators(*kinds: str) -> list[Operator]:
    """A chain: each operator needs what the one before makes."""
    return [
        Operator(kind, Layer(kind, f"{n}", (), 0.0), n, (n - 1,), (n,))
        for n, kind in enumerate(kinds)
    ]


def test_steps_are_counted_off() -> None:
    operators = _operators("CONV_2D", "CONV_2D", "ADD", "CONCATENATION", "CONV_2D")
    steps = [
        ("Convolution (NHWC, QC8) IGEMM", 1.0),
        ("Fully Connected (NC, QS8) GEMM", 2.0),
        ("Add (ND)", 4.0),
        ("Clamp (NC)", 8.0),
        ("Copy (NC, X8)", 16.0),
        ("Copy (NC, X8)", 32.0),
        ("Convolution (NHWC, QC8) IGEMM", 64.0),
        ("Convert (NC)", 128.0),
    ]

    layers = joined(operators, [Step(*one) for one in steps])

    assert layers is not None
    assert [one.milliseconds for one in layers] == [1, 2, 12, 48, 64 + 128]
    assert layers[2].steps == ("Add (ND)", "Clamp (NC)")


def test_what_xnnpack_does_not_take_runs_between_its_parts() -> None:
    # A branch that needs the picture alone runs with the first part.
    chain = _operators("CONV_2D", "MUL", "MAXIMUM", "CONV_2D", "ADD")
    branch = Operator("CONV_2D", Layer("branch", "b", (), 0.0), 5, (-1,), (5,))
    add = Operator("ADD", chain[4].layer, 4, (3, 5), (4,))
    operators = [*chain[:4], branch, add]
    assert [one.number for one in executed_order(operators, {2})] == [0, 1, 5, 2, 3, 4]
    steps = [
        Step("Convolution", 1.0),
        Step("Multiply", 2.0),
        Step("Fully Connected", 4.0),
        Step("MAXIMUM", 8.0, 2),
        Step("Convolution", 16.0),
        Step("Add", 32.0),
    ]

    layers = joined(operators, steps)

    assert layers is not None
    assert {one.name: one.milliseconds for one in layers} == {
        **{"0": 1.0, "1": 2.0, "b": 4.0},
        **{"2": 8.0, "3": 16.0, "4": 32.0},
    }
    assert joined(operators, [*steps[:3], Step("MINIMUM", 8.0, 2), *steps[4:]]) is None


@pytest.mark.parametrize(
    "steps",
    [
        ["Convolution"],  # one too few
        ["Convolution", "Add", "Convolution"],  # one too many
        ["Add", "Convolution"],  # another order
    ],
)
def test_steps_that_do_not_fit_are_not_given_away(steps: list[str]) -> None:
    assert joined(_operators("CONV_2D", "ADD"), [Step(step, 1.0) for step in steps]) is None


def test_kinds_add_up() -> None:
    layers = [
        Layer("a", "", (), 1.0, 300, 10),
        Layer("b", "", (), 2.0, 0, 20),
        Layer("a", "", (), 5.0, 100, 30),
    ]
    first, second = kinds_of(layers)
    assert (first.operator, first.count, first.milliseconds, first.bytes) == ("a", 2, 6.0, 40)
    assert (first.share, first.multadds_share) == (0.75, 1.0)
    assert (second.share, second.multadds_share) == (0.25, 0.0)


def test_steps_that_stand_alone_are_called_so() -> None:
    profile = Profile("f", "R", (8, 8), 1, 2, (Layer("Copy", "", ("Copy",), 1.0),), joined=False)
    assert "they stand alone" in profile_text(profile)


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_real_profiles_find_every_convolution(
    kind: str, precision: str, tiny: Any, write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    path = tmp_path / write_artifact(tmp_path, kind, precision).file

    found = layers_of(path, (16, 24), 1, runs=2)

    assert found.joined
    assert found.size == (16, 24)
    counted = sum(one.multadds for one in found.layers)
    # The graph's count is of the network; int8 files have a channel of ones besides, and the
    # profile may add convolutions that copy.
    own = tiny.graph.multadds(48, 32)
    assert own <= counted <= 1.5 * own if precision == "int8" else counted == own
    assert sum(one.milliseconds for one in found.layers) > 0
    assert any("entry" in one.name or "conv2d" in one.name for one in found.layers)
    text = profile_text(found)
    assert "measured by the profiler of" in text
    assert "of MultAdds" in text


def test_files_that_cannot_be_profiled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.tflite and \.onnx files only"):
        layers_of(tmp_path / "x.mlpackage", (8, 8), 1)
    with pytest.raises(UserError, match="no such file"):
        layers_of(tmp_path / "x.onnx", (8, 8), 1)
    for name in ("x.onnx", "x.tflite"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(UserError, match="cannot be profiled"):
            layers_of(tmp_path / name, (8, 8), 1)


def test_litert_profiles_one_thread(
    write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    path = tmp_path / write_artifact(tmp_path, "tflite", "float32").file
    with pytest.raises(UserError, match="--threads 1"):
        layers_of(path, (8, 8), 2)
