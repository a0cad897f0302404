"""``reslite models --field``, its documentation, and files of the networks that it lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import benchmarks.field
from benchmarks.field import FieldRow
from benchmarks.multadds import layers_of_module, total
from training.checkpoint import save_tensors
from training.recipe import Recipe
from training.recipe_reading import load_recipe

Cli = Callable[..., Any]

PAGE = (Path(__file__).parents[2] / "docs" / "field.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _counted_once(counted_field: list[FieldRow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.field, "field_rows", lambda: iter(counted_field))


def test_the_page_shows_what_the_command_prints(cli: Cli) -> None:
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
    assert cli("models", "--field").out == shown


def test_json_has_every_row(cli: Cli, counted_field: list[FieldRow]) -> None:
    found = json.loads(cli("models", "--field", "--json").out)
    assert len(found) == len(counted_field)
    (vdsr,) = (row for row in found if row["name"] == "vdsr")
    assert (vdsr["scales"], vdsr["published_multadds"], vdsr["agrees"]) == (
        [2, 3, 4],
        "612.6G",
        True,
    )
    assert vdsr["multadds_as_published"] == 664_704 * 1280 * 720


def test_a_name_does_not_go_with_the_field(cli: Cli) -> None:
    outcome = cli("models", "carn", "--field")
    assert outcome.code == 2
    assert "leave the name out" in outcome.err


def test_the_grid_of_carn_m_in_the_page_is_what_its_settings_build() -> None:
    # Fig. 2.8: MultAdds at ×4, and parameters of all scales without and with recursion (G1 is in
    # no table; test_field.py of the benchmarks computes its MultAdds by the thesis' equations).
    grid = re.findall(
        r"\| G(\d+), .*? \| `--set ([^`]+)` \| ([\d.]+) G \| ([\d,]+) \| ([\d,]+) \|", PAGE
    )
    assert [int(groups) for groups, *_ in grid] == [1, 2, 4, 8, 16, 32, 64]
    assert [multadds for _, _, multadds, _, _ in grid[1:]] == [
        "52.7",
        "32.5",
        "22.4",
        "17.4",
        "14.8",
        "13.6",
    ]
    for _, change, multadds, without, shared in grid:
        for recursive, parameters in (("false", without), ("true", shared)):
            recipe = load_recipe("carn-m", [change, f"network.recursive={recursive}"])
            with torch.device("meta"):
                network = recipe.network.build()
            costs = total(layers_of_module(network.at_scale(4), 4))
            assert f"{costs.multadds / 1e9:.1f}" == multadds
            assert f"{sum(one.numel() for one in network.parameters()):,}" == parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edsr-baseline", "fsrcnn", "lapsrn", "mdsr", "rcan", "srcnn"])
def test_files_of_a_network_are_proven(
    name: str, field_recipe: Callable[[str], Recipe], cli: Cli, tmp_path: Path
) -> None:
    recipe = field_recipe(name)
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    tensors = recipe.network.build().state_dict()
    save_tensors(weights, tensors, {"recipe": recipe.model_dump_json()})
    kinds = ("--format", "onnx", "--format", "tflite", "--precision", "float32")
    outcome = cli("export", weights, "--scale", 4, *kinds, "--out", tmp_path / "dist")
    assert outcome.code == 0, outcome.err
    manifest = json.loads((tmp_path / "dist" / "manifest.json").read_text())
    assert len(manifest["artifacts"]) == 2
    assert all(one["measured"]["max_abs_diff"] <= 1e-5 for one in manifest["artifacts"])


@pytest.mark.slow
def test_an_untrained_pcarn_becomes_files_of_every_kind(
    cli: Cli, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    recipe = load_recipe("pcarn-m", ["network.channels=8", "network.groups=2"])
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    tensors = recipe.network.build().state_dict()
    save_tensors(weights, tensors, {"recipe": recipe.model_dump_json()})
    photos, table = tmp_path / "photos", tmp_path / "scales.json"
    photos.mkdir()
    Image.fromarray(astronaut).save(photos / "a.png")
    chosen = ["--calibration", photos, "--out", table]
    assert cli("quantize", weights, "--scale", 4, *chosen).code == 0
    files_of = ["--scales", table, "--out", tmp_path / "dist"]
    outcome = cli("export", weights, "--scale", 4, *files_of)
    assert outcome.code == 0, outcome.err
    manifest = json.loads((tmp_path / "dist" / "manifest.json").read_text())
    files = {(one["format"], one["precision"]): one["measured"] for one in manifest["artifacts"]}
    assert files.keys() == {
        (file, precision)
        for file in ("coreml", "onnx", "tflite")
        for precision in ("float32", "float16", "int8")
    }
    for (file, precision), measured in files.items():
        if file != "coreml" and precision != "int8":
            assert measured["max_abs_diff"] <= (1e-5 if precision == "float32" else 2e-2)
