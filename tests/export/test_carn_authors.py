"""Checkpoints with the names that CARN's and PCARN's authors gave their tensors.

``Theirs`` is the network by its published facts: names of the tensors, and what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.sources.finding import find_network
from export.sources.foreign import Foreign
from export.sources.options import Options
from export.sources.source import Source
from export.variants import DEFAULT_VARIANTS
from runtime.errors import UserError
from training.recipe_reading import load_recipe

MEANS = (0.4488, 0.4371, 0.4040)


class Theirs:
    """Random weights by the authors' names, and the network that they are of."""

    def __init__(self, kind: str, scales: tuple[int, ...] = (2, 3, 4), channels: int = 8) -> None:
        self.perceptual, self.mobile = kind.startswith("p"), kind.endswith("-m")
        self.groups, self.several = (2 if self.mobile else 1), len(scales) > 1
        self.state: dict[str, Tensor] = {}
        torch.manual_seed(0)
        for name, sign in (("sub", -1), ("add", 1)):
            self.state[f"{name}_mean.shifter.weight"] = torch.eye(3).reshape(3, 3, 1, 1)
            self.state[f"{name}_mean.shifter.bias"] = sign * torch.tensor(MEANS)
        self._add("entry", 3, channels, 3)
        for block in "123":
            for unit in "1" if self.mobile else "123":
                for layer, size in self._layers():
                    groups = self.groups if size == 3 else 1
                    self._add(f"b{block}.b{unit}.{layer}", channels, channels, size, groups)
            for fusion in "123":
                self._add(
                    self._fusion(f"b{block}.", fusion), channels * (int(fusion) + 1), channels
                )
        for fusion in "123":
            self._add(self._fusion("", fusion), channels * (int(fusion) + 1), channels)
        for scale in scales:
            for place, factor in self._stages(scale):
                name = f"upsample.{self._up(scale)}.body.{place}"
                self._add(name, channels, channels * factor**2, 3, self.groups)
        self._add("exit", channels, 3, 3)
        if self.perceptual and self.mobile:  # PCARN-M names its shared block three times.
            for name in [name for name in self.state if ".b1." in name]:
                for unit in "23":
                    self.state[name.replace(".b1.", f".b{unit}.")] = self.state[name]

    def _add(self, name: str, inputs: int, outputs: int, size: int = 1, groups: int = 1) -> None:
        shape = (outputs, inputs // groups, size, size)
        self.state[f"{name}.weight"] = torch.randn(shape) / (inputs // groups * size**2) ** 0.5
        self.state[f"{name}.bias"] = torch.randn(outputs) / 10

    def _layers(self) -> list[tuple[str, int]]:
        sequence = ["body.0", "body.2", "body.4"]
        names = ["conv1", "conv2", "pw"] if self.perceptual else sequence
        return list(zip(names, (3, 3, 1), strict=True))[: 3 if self.mobile else 2]

    def _fusion(self, block: str, number: str) -> str:
        return f"{block}c{number}" if self.perceptual else f"{block}c{number}.body.0"

    def _stages(self, scale: int) -> list[tuple[int, int]]:
        return [(0, 2), (3, 2)] if scale == 4 else [(0, scale)]

    def _up(self, scale: int) -> str:
        return f"up{scale}" if self.several else "up"

    def __call__(self, picture: Tensor, scale: int) -> Tensor:
        entered = self._convolve(self._convolve(picture, "sub_mean.shifter"), "entry")
        features = self._cascade(
            entered, "", lambda x, b: self._cascade(x, f"b{b}.", self._unit(b))
        )
        features = features + entered if self.perceptual else features
        for place, factor in self._stages(scale):
            name = f"upsample.{self._up(scale)}.body.{place}"
            features = F.pixel_shuffle(self._convolve(features, name, self.groups).relu(), factor)
        return self._convolve(self._convolve(features, "exit"), "add_mean.shifter")

    def _cascade(self, x: Tensor, name: str, stage: Callable[[Tensor, str], Tensor]) -> Tensor:
        outputs, current = [x], x
        for number in "123":
            outputs.append(stage(current, number))
            current = self._convolve(torch.cat(outputs, 1), self._fusion(name, number))
            current = current if self.perceptual else current.relu()
        return current

    def _unit(self, block: str) -> Callable[[Tensor, str], Tensor]:
        def unit(x: Tensor, number: str) -> Tensor:
            y, name = x, f"b{block}.b{'1' if self.mobile else number}"
            for place, (layer, size) in enumerate(self._layers()):
                y = y.relu() if place else y
                y = self._convolve(y, f"{name}.{layer}", self.groups if size == 3 else 1)
            return (x + y).relu()

        return unit

    def _convolve(self, x: Tensor, name: str, groups: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)


def _saved(theirs: Theirs, folder: Path, **changes: Any) -> Path:
    path = folder / "Carn_x4.pth"
    torch.save({**theirs.state, **changes}, path)
    return path


def _read(path: Path, kind: Any = None) -> Foreign:
    found = find_network(str(path), Options(architecture=kind))
    assert isinstance(found, Foreign)
    return found


def _by_name_of_pcarn(name: str) -> str:
    if re.match(r"(b\d\.)?c\d\.", name):
        return name.replace(".body.0.", ".")
    if name.startswith("b"):
        for place, layer in (("body.0", "conv1"), ("body.2", "conv2"), ("body.4", "pw")):
            name = name.replace(place, layer)
    return name


KINDS = ("carn", "carn-m", "pcarn", "pcarn-m")


@pytest.mark.parametrize("kind", KINDS)
def test_each_network_is_told_by_its_names_and_computes_what_theirs_does(
    kind: str, tmp_path: Path, picture: Callable[[int, int], NDArray[np.float32]]
) -> None:
    theirs = Theirs(kind)
    found = _read(_saved(theirs, tmp_path))
    assert found.architecture == kind.upper()
    assert found.name == "carn-x4"  # It restores other scales, too.
    image = torch.from_numpy(picture(7, 5))
    for scale in (2, 3, 4):
        restored = found.at_scale(scale)(image)
        torch.testing.assert_close(restored, theirs(image, scale), atol=2e-6, rtol=1e-5)
    with pytest.raises(UserError, match="name the upscaling factor with --scale: 2, 3, 4"):
        found.chosen_scale(None)


def test_published_checkpoints_have_so_many_tensors_and_parameters() -> None:
    """58 tensors in carn_m.pth; 412K and 1,592K parameters (Ahn et al. 2018, Table 1)."""
    mobile, plain = (Theirs(kind, channels=64).state for kind in ("carn-m", "carn"))
    assert len(mobile) == 58
    counted = sum(one.numel() for name, one in plain.items() if "_mean" not in name)
    assert counted == 1_591_939


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_network_of_one_scale_is_read(
    scale: int, tmp_path: Path, picture: Callable[[int, int], NDArray[np.float32]]
) -> None:
    theirs = Theirs("carn-m", scales=(scale,))
    found = _read(_saved(theirs, tmp_path))
    image = torch.from_numpy(picture(5, 6))
    restored = found.at_scale(found.chosen_scale(None))(image)
    torch.testing.assert_close(restored, theirs(image, scale), atol=2e-6, rtol=1e-5)
    assert found.name == ("carn" if scale == 4 else "carn-x4")


def test_what_the_person_says_counts_more_than_the_names(
    tmp_path: Path, picture: Callable[[int, int], NDArray[np.float32]]
) -> None:
    theirs = Theirs("carn-m")
    path, image = _saved(theirs, tmp_path), torch.from_numpy(picture(5, 6))
    theirs.perceptual = True  # The same tensors, by PCARN's names.
    theirs.state = {_by_name_of_pcarn(name): one for name, one in theirs.state.items()}
    expected = theirs(image, 2)
    as_said, by_names = (_read(path, kind).at_scale(2)(image) for kind in ("pcarn-m", None))
    torch.testing.assert_close(as_said, expected, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(by_names, expected, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_of_this_name_builds_the_network_of_the_checkpoint(
    kind: str, tmp_path: Path, picture: Callable[[int, int], NDArray[np.float32]]
) -> None:
    theirs = Theirs(kind)
    found = _read(_saved(theirs, tmp_path)).at_scale(2)
    network = load_recipe(
        kind, ["network.channels=8", f"network.groups={theirs.groups}"]
    ).network.build()
    ours = network.at_scale(2).eval()
    ours.load_state_dict(found.state_dict())
    image = torch.from_numpy(picture(7, 5))
    torch.testing.assert_close(ours(image), theirs(image, 2), atol=2e-6, rtol=1e-5)


@pytest.mark.slow
def test_every_float_file_of_it_is_proven(tmp_path: Path) -> None:
    source = Source.of(_read(_saved(Theirs("pcarn-m"), tmp_path)), 2)
    variants = [one for one in DEFAULT_VARIANTS if one.precision != "int8"]
    manifest = bundle_of(source, variants, tmp_path / "out")
    proven = [one.measured.max_abs_diff is not None for one in manifest.artifacts]
    assert sum(proven) == sum(one.format != "coreml" for one in variants)
    assert manifest.training["source"]["architecture"] == "PCARN-M"


def test_mean_shifts_cost_nothing_in_the_graph(tmp_path: Path) -> None:
    graph = capture(_read(_saved(Theirs("pcarn-m"), tmp_path)).at_scale(2))
    assert graph.operators()["Conv"] == 1 + 3 * (3 * 3 + 3) + 3 + 1 + 1


def _refused(path: Path, kind: Any = None) -> str:
    with pytest.raises(UserError) as caught:
        _read(path, kind)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bad_checkpoints_are_refused_with_a_reason(tmp_path: Path) -> None:
    mobile = Theirs("carn-m")
    path = _saved(mobile, tmp_path)
    assert "is no carn: its residual blocks have the 1×1 convolution" in _refused(path, "carn")
    shift = {"sub_mean.shifter.bias": torch.tensor([-0.5, -0.5, -0.5])}
    assert "sub_mean.shifter.bias is another; expected a shift by the mean" in _refused(
        _saved(mobile, tmp_path, **shift)
    )
    assert "1 unexpected: extra.weight" in _refused(
        _saved(mobile, tmp_path, **{"extra.weight": torch.ones(2)})
    )
    del mobile.state["b2.c1.body.0.bias"]
    assert "1 missing: body.stages.1.fusions.0.bias" in _refused(_saved(mobile, tmp_path))
    del mobile.state["add_mean.shifter.weight"]
    assert "add_mean.shifter.weight is missing" in _refused(_saved(mobile, tmp_path))
    torch.save({"a.weight": torch.ones(3)}, tmp_path / "other.pth")
    assert "--as is for checkpoints with the names of CARN's authors" in _refused(
        tmp_path / "other.pth", "pcarn"
    )
    with pytest.raises(UserError, match="--as does not go with a network that reslite trained"):
        find_network("carn-m", Options(architecture="carn"))
