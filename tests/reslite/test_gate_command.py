"""The gate on the real bundle of CARN-M ×4 passes, and fails for every kind of deviation."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import snapshots
from export.bundle import bundle_of
from export.scales import Quantization
from export.sources.source import Source
from export.variants import DEFAULT_VARIANTS
from quantize import load_scales
from quantize.simulator import int8_reference
from reslite.commands.gate import _chosen
from runtime.errors import UserError
from training.catalogue import find_model

Cli = Callable[..., Any]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.of(find_model("carn-m"), 4)


@pytest.fixture(scope="module")
def whole_bundle(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    bundle_of(source, DEFAULT_VARIANTS, folder, load_scales("carn-m", 4), int8_reference)
    return folder


def _tampered(
    source: Source, whole: Path, folder: Path, table: Any, which: Callable[[Any], bool]
) -> list[str]:
    """Replace the files of the variants that ``which`` picks; return their names."""
    shutil.copytree(whole, folder)
    chosen = [variant for variant in DEFAULT_VARIANTS if which(variant)]
    bundle_of(source, chosen, folder, table, overwrite=True)
    return [variant.file_name("carn-m", 4) for variant in chosen]


def _named(output: str) -> set[str]:
    return set(re.findall(r"^(carn_m_x4_\S+)", output, re.MULTILINE))


def test_a_baseline_of_another_version_is_found_so_that_it_can_be_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(snapshots, "BASELINES", tmp_path)
    with pytest.raises(UserError, match="holds no baseline"):
        _chosen(None, None)
    (tmp_path / "carn_m_x3.json").write_text('{"schema": 0}')
    assert _chosen(None, None) == [("carn-m", 3)]


def test_the_gate_passes_on_what_is_committed(cli: Cli, whole_bundle: Path) -> None:
    outcome = cli("gate", "--bundle", whole_bundle)
    assert outcome.code == 0, outcome.out + outcome.err
    assert "10 artifacts of carn-m ×4 are as expected" in outcome.out


@pytest.mark.parametrize(
    "weight",
    ["entry.weight", "body.stages.1.stages.0.body.2.weight", "upsampler.3.weight", "exit.weight"],
)
def test_a_weight_off_by_one_percent_fails_and_names_the_artifact(
    cli: Cli, source: Source, whole_bundle: Path, tmp_path: Path, weight: str
) -> None:
    constants = {**source.graph.constants}
    constants[weight] = (constants[weight] * 1.01).astype(np.float32)
    graph = dataclasses.replace(source.graph, constants=constants)
    tampered = dataclasses.replace(source, graph=graph, module=_with_scaled_weight(source, weight))
    files = _tampered(
        tampered,
        whole_bundle,
        tmp_path / "bundle",
        load_scales("carn-m", 4),
        lambda v: (v.format, v.precision) in {("onnx", "float32"), ("tflite", "int8")},
    )
    outcome = cli("gate", "--bundle", tmp_path / "bundle")
    assert outcome.code == 1
    assert _named(outcome.out) == set(files)
    assert "reslite gate --update" in outcome.out


def _with_scaled_weight(source: Source, weight: str) -> Any:
    """Return the module with the same perturbation, so that parity does not stop the export."""
    import copy

    import torch

    module = copy.deepcopy(source.module)
    with torch.no_grad():
        module.get_parameter(weight).mul_(1.01)
    return module


@pytest.mark.parametrize("value", ["conv2d", "relu_12"])
def test_a_scale_off_by_five_percent_fails_and_names_the_artifact(
    cli: Cli, source: Source, whole_bundle: Path, tmp_path: Path, value: str
) -> None:
    table = load_scales("carn-m", 4)
    activations = {
        name: Quantization(one.scale * 0.95, one.zero_point)
        if one == table.activations[value]
        else one
        for name, one in table.activations.items()
    }
    tampered = dataclasses.replace(table, activations=activations)
    folder, int8 = tmp_path / "bundle", lambda v: v.precision == "int8"
    files = _tampered(source, whole_bundle, folder, tampered, int8)

    outcome = cli("gate", "--bundle", folder)

    assert outcome.code == 1
    assert _named(outcome.out) == set(files)
    pixels = re.findall(r"^(carn_m_x4_\S+) +mean change of restored", outcome.out, re.MULTILINE)
    assert {"carn_m_x4_int8.tflite", "carn_m_x4_int8_float_io.tflite"} <= set(pixels)


def test_a_bundle_is_judged_as_it_is(cli: Cli, whole_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(whole_bundle, folder)
    file = folder / "carn_m_x4_int8.tflite"
    content = bytearray(file.read_bytes())
    content[200_000] ^= 1
    file.write_bytes(content)
    (folder / "carn_m_x4_float16.onnx").unlink()

    outcome = cli("gate", "--bundle", folder)

    assert outcome.code == 1
    assert _named(outcome.out) == {file.name, "carn_m_x4_float16.onnx"}
    assert "SHA-256" in outcome.out
    assert file.read_bytes() == content
    assert not (folder / "carn_m_x4_float16.onnx").exists()


def test_what_the_gate_cannot_check_is_refused(
    cli: Cli, whole_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "holds carn-m ×4" in cli("gate", "--bundle", whole_bundle, "--scale", 2).err
    assert "holds no manifest.json" in cli("gate", "--bundle", tmp_path).err
    assert "--scale goes with --model" in cli("gate", "--scale", 4).err
    monkeypatch.setattr(snapshots, "BASELINES", tmp_path)
    outcome = cli("gate")
    assert outcome.code == 2
    assert "holds no baseline" in outcome.err
