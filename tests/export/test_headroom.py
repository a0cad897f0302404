"""Overflow in half arithmetic is told, and undone where powers of two can undo it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.execution import execute
from export.headroom import executed_in_half, float16_gains, warning_of
from export.lowered import lower_for
from export.lowering import lower
from export.profiles import FLOAT_FORM
from export.rewrites.gains import with_gains
from export.sources.source import Source
from export.variants import Variant
from runtime.manifest import HalfPrecision, read_manifest
from training.catalogue import Model, find_model
from training.networks.carn import AtScale, Carn, CarnConfig
from training.recipe_reading import load_recipe

_FLOAT16 = Variant("onnx", "float16")


class _Restoring(nn.Module):
    """A picture plus what three layers make of it; the features in between are ``times`` larger."""

    def __init__(self, times: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.slope = nn.PReLU(8)
        with torch.no_grad():
            for one in (self.first.weight, self.first.bias, self.second.bias):
                one *= times
            self.last.weight /= times

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.first(image))
        features = features + self.slope(self.second(features))
        restored: torch.Tensor = image + 0.1 * self.last(features)
        return restored


def _source(module: nn.Module, folder: Path) -> Source:
    path = folder / "weights.safetensors"
    path.write_bytes(b"weights")
    module = module.eval()
    return Source(Model("small", path, load_recipe("carn-m"), {}), 1, module, capture(module))


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return _source(_Restoring(2.0**17), tmp_path_factory.mktemp("overflowing"))


def test_overflow_is_told_with_its_layer(overflowing: Source) -> None:
    found = executed_in_half(lower_for(overflowing, _FLOAT16).whole)
    assert found.headroom < 1
    assert found.largest == pytest.approx(65504 / found.headroom)
    assert found.psnr_in_half < 30
    line = warning_of("small.onnx", found)
    assert line is not None
    assert line.startswith(f"small.onnx: '{found.layer}' reaches")
    assert found.layer in {"first", "second", ""}


def test_gains_undo_overflow_and_change_nothing_else(overflowing: Source) -> None:
    gains = float16_gains(overflowing.graph)
    assert gains
    assert all(gain == 2.0 ** round(np.log2(gain)) for gain in gains.values())
    plain, eased = (lower_for(overflowing, _FLOAT16, None, one) for one in ({}, gains))
    assert eased.rewrites == (*FLOAT_FORM, "with_gains", *plain.rewrites[len(FLOAT_FORM) :])
    image = torch.rand(1, 3, 13, 17, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(
            execute(eased.graph, image), execute(plain.graph, image), rtol=0, atol=0
        )
    found = executed_in_half(eased.whole)
    assert found.headroom >= 8
    assert found.psnr_in_half > 60
    assert warning_of("small.onnx", found) is None


def test_what_is_far_from_overflow_is_left_alone(tmp_path: Path) -> None:
    source = _source(_Restoring(1.0), tmp_path)
    assert float16_gains(source.graph) == {}
    assert warning_of("small.onnx", executed_in_half(lower_for(source, _FLOAT16).whole)) is None


@pytest.mark.parametrize(("name", "scale"), [("carn", 2), ("carn-m", 4)])
def test_our_own_networks_need_no_gains(name: str, scale: int) -> None:
    assert float16_gains(Source.of(find_model(name), scale).graph) == {}


def test_gains_leave_a_network_of_cascades_as_it_is() -> None:
    torch.manual_seed(1)
    config = CarnConfig(channels=16, groups=4, efficient=True, recursive=True)
    module = AtScale(Carn(config), 2).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 6
    graph = lower(capture(module), FLOAT_FORM)
    gains = float16_gains(graph)
    assert gains
    image = torch.rand(1, 3, 6, 7)
    with torch.inference_mode():
        before, after = (execute(one, image) for one in (graph, with_gains(graph, gains)))
    torch.testing.assert_close(after, before, rtol=1e-6, atol=0)


def test_a_profile_that_keeps_the_template_bank_gets_no_gains(overflowing: Source) -> None:
    variant = Variant("onnx", "float16", profile="ort-cpu-banked")
    assert "with_gains" not in lower_for(overflowing, variant, None, {"x": 0.5}).rewrites


def test_a_bundle_records_half_arithmetic_of_float16_files(
    overflowing: Source, tmp_path: Path
) -> None:
    lines: list[str] = []
    photographs = [np.full((9, 9, 3), 0.5, np.float32)]
    variants = [_FLOAT16, Variant("onnx", "float32"), Variant("tflite", "float16")]
    bundle_of(
        overflowing,
        variants,
        tmp_path / "out",
        announce=lines.append,
        photographs=lambda: photographs,
    )
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    found = {one.file: one for one in manifest.artifacts}
    assert found["small_x1_float32.onnx"].float16 is None
    for file in ("small_x1_float16.onnx", "small_x1_float16.tflite"):
        assert "with_gains" in found[file].rewrites
        record = found[file].float16
        assert record is not None
        assert record.headroom >= 8
        assert record.pictures == 8  # saturated colours, two of noise, and the photograph
    assert not [line for line in lines if line.startswith("warning")]


class _Saturating(nn.Module):
    """Its features are clipped, so that no factor can go through them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        with torch.no_grad():
            self.first.weight *= 2.0**15
            self.second.weight *= 2.0**-8
            self.last.weight *= 2.0**-7

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        restored: torch.Tensor = self.last(self.second(self.first(image).clamp(-6e4, 6e4)))
        return restored


def test_what_no_gain_undoes_is_announced_each_time(tmp_path: Path) -> None:
    source = _source(_Saturating(), tmp_path)
    for _ in range(2):
        lines: list[str] = []
        bundle_of(source, [_FLOAT16], tmp_path / "out", announce=lines.append)
        (warning,) = [line for line in lines if line.startswith("warning")]
        assert "'first' reaches" in warning


_FOUND = HalfPrecision(1000.0, 65.504, "body.3", 60.0, 70.0, 11)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"headroom": 1.9, "largest": 34475.8}, "'body.3' reaches 34,476, float16 ends at 65,504"),
        ({"psnr_in_half": 49.0}, "49.0 dB from the network with sums in float16"),
        ({"psnr_in_half": 0.0, "headroom": 0.1}, "ship float32 or int8 for GPUs and NPUs"),
    ],
)
def test_little_headroom_and_low_psnr_are_worth_a_line(
    change: dict[str, float], words: str | None
) -> None:
    line = warning_of("net.tflite", dataclasses.replace(_FOUND, **change))
    assert line is None if words is None else line is not None and words in line


def test_what_is_not_finite_counts_as_black(overflowing: Source) -> None:
    graph = overflowing.graph
    constants = {name: np.full_like(array, np.inf) for name, array in graph.constants.items()}
    found = executed_in_half(dataclasses.replace(graph, constants=constants))
    assert np.isfinite([found.largest, found.headroom, found.psnr_in_half]).all()
    assert found.headroom < 1
