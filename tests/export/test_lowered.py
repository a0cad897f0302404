"""The rewrites of every file, as manifests list them, and the graphs they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.execution import execute
from export.graph import Graph, Node
from export.lowered import lower_for
from export.profiles import DEFAULT_PROFILES, PROFILES
from export.rewrites.roundings import as_text
from export.scales import ScaleTable
from export.sources.source import Source
from export.variants import Variant
from runtime.errors import UserError

COMMON = (
    *(
        "fold_template_bank",
        "fold_output_shift",
        "fold_scaling",
        "convolve_blocks",
        "transposed_by_shuffles",
    ),
    *("convolve_before_resizes", "resize_by_shuffles", "interpolate_by_convolutions"),
)
QUANTIZED = (
    *(*COMMON, "carry_mean_as_channel"),
    *("convolve_before_pooling", "split_signs", "flatten_slopes"),
    *("with_gains", "with_roundings"),
    "with_corrected_biases",
)
# What manifests of CARN-M and MEPSNet-S list.
FLOAT_REWRITES = {
    "litert-cpu": (
        *(*COMMON, "convolve_before_shuffles"),
        *(
            "convolve_for_shuffles",
            "split_shuffled_convolutions",
            "use_dcr_shuffles",
            "pad_before_convolutions",
        ),
    ),
    "litert-cpu-amx": (
        *COMMON,
        *(
            "convolve_for_shuffles",
            "split_shuffled_convolutions",
            "use_dcr_shuffles",
            "pad_before_convolutions",
        ),
    ),
    "litert-gpu": (
        *(*COMMON, "convolve_before_shuffles", "convolve_for_shuffles"),
        *("split_shuffled_convolutions", "use_dcr_shuffles", "split_unaligned_groups"),
        "pad_before_convolutions",
    ),
    "ort-cpu": (*COMMON, "convolve_before_shuffles"),
    "ort-cpu-banked": ("fold_output_shift",),
    "coreml-ane": COMMON,
    "coreai": COMMON,
    "ethos-u": (
        *(*COMMON, "convolve_before_shuffles"),
        *("convolve_for_shuffles", "split_shuffled_convolutions", "use_transposed_convolutions"),
        "join_rows_of_shuffles",
        "pad_before_convolutions",
    ),
}
FLOAT16_REWRITES = {
    "ort-cpu": ("split_grouped_convolutions",),
    "ort-cpu-banked": ("split_grouped_convolutions",),
}
INT8_REWRITES = {
    "litert-cpu": (
        *QUANTIZED,
        *(
            "convolve_before_shuffles",
            "convolve_for_shuffles",
            "split_shuffled_convolutions",
            "use_dcr_shuffles",
        ),
        "pad_before_convolutions",
    ),
    "litert-cpu-amx": (
        *(*QUANTIZED, "convolve_for_shuffles", "make_convolutions_dense", "use_dcr_shuffles"),
        "pad_before_convolutions",
    ),
    "litert-gpu": (
        *(*QUANTIZED, "convolve_before_shuffles", "convolve_for_shuffles"),
        *("split_shuffled_convolutions", "use_dcr_shuffles", "split_unaligned_groups"),
        "pad_before_convolutions",
    ),
    "ort-cpu": (*QUANTIZED, "convolve_before_shuffles"),
    "ort-cpu-banked": QUANTIZED,
    "coreml-ane": QUANTIZED,
    "coreai": QUANTIZED,
    "ethos-u": (
        *QUANTIZED,
        *(
            "convolve_before_shuffles",
            "convolve_for_shuffles",
            "split_shuffled_convolutions",
            "use_transposed_convolutions",
            "join_rows_of_shuffles",
        ),
        "pad_before_convolutions",
    ),
}


@pytest.fixture(scope="module")
def source() -> Source:
    """A gate over four channels, concatenated with them: pooling, and inputs of two scales."""
    random = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "exit.w": (3, 8, 1, 1), "exit.b": (3,)}
    constants = {
        name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()
    }
    nodes = (
        Node("Conv", "entry", ("image", "w", "b"), ("features",), {"groups": 1}),
        Node("Relu", "relu", ("features",), ("rectified",)),
        Node("GlobalAveragePool", "pool", ("rectified",), ("mean",)),
        Node("Mul", "gate", ("rectified", "mean"), ("gated",)),
        Node("Concat", "both", ("rectified", "gated"), ("both",)),
        Node("Conv", "exit", ("both", "exit.w", "exit.b"), ("restored_image",), {"groups": 1}),
    )
    model: Any = SimpleNamespace(name="gate", sha256="", path="gate.safetensors")
    return Source(model, 1, nn.Identity(), Graph(nodes, constants))


@pytest.fixture(scope="module")
def table(source: Source, calibrated: Callable[..., ScaleTable]) -> ScaleTable:
    """Scales with a gain, the roundings of a kernel and a requantized input."""
    image = np.random.default_rng(1).random((1, 3, 9, 9), np.float32)
    requantized = (("gated", "both"),)
    return dataclasses.replace(
        calibrated(source.graph, image, requantized=requantized),
        scale=1,
        gains={"features": 1.0},
        roundings={"exit.w": (as_text(np.zeros((3, 8, 1, 1), bool)),)},
    )


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tiled", [False, True])
def test_rewrites_are_those_of_the_manifests_of_before(
    source: Source, table: ScaleTable, profile: str, tiled: bool
) -> None:
    variant = Variant(PROFILES[profile].format, "float32", profile=profile, tiled=tiled)
    cut = ("cut_at_pooling",) if tiled else ()

    int8 = lower_for(source, dataclasses.replace(variant, precision="int8"), table)

    assert lower_for(source, variant).rewrites == (*FLOAT_REWRITES[profile], *cut)
    half = lower_for(source, dataclasses.replace(variant, precision="float16"))
    more = FLOAT16_REWRITES.get(profile, ())
    assert half.rewrites == (*FLOAT_REWRITES[profile], *more, *cut)
    assert int8.rewrites == (*INT8_REWRITES[profile], *cut, "with_requantization")


def test_rewrites_that_a_table_does_not_ask_for_are_not_listed(
    source: Source, table: ScaleTable
) -> None:
    plain = dataclasses.replace(table, gains={}, roundings={}, requantized=())

    rewrites = lower_for(source, Variant("coreml", "int8"), plain).rewrites

    assert rewrites == (*QUANTIZED[:12], "with_corrected_biases")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_graph_that_is_cut_brings_the_whole_one(
    source: Source, table: ScaleTable, precision: Any
) -> None:
    cut = lower_for(source, Variant("onnx", precision, tiled=True), table)
    uncut = lower_for(source, Variant("onnx", precision), table)

    assert cut.graph.pooling is not None
    assert uncut.whole is uncut.graph
    assert cut.whole.operators() == uncut.graph.operators()
    assert cut.whole.operators()["GlobalAveragePool"] == 1
    assert ("Requantize" in cut.whole.operators()) == (precision == "int8")
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(execute(cut.whole, image), execute(uncut.graph, image))


def test_profiles_of_other_formats_and_missing_scales_are_refused(source: Source) -> None:
    with pytest.raises(UserError, match="profile ethos-u is for tflite, not onnx"):
        lower_for(source, Variant("onnx", "float32", profile="ethos-u"))
    with pytest.raises(UserError, match="int8 needs a table of scales"):
        lower_for(source, Variant("onnx", "int8"))


def test_default_profiles_are_those_of_the_file_names() -> None:
    assert DEFAULT_PROFILES == {
        "tflite": "litert-cpu",
        "onnx": "ort-cpu",
        "coreml": "coreml-ane",
        "coreai": "coreai",
    }
