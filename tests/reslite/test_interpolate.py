"""``reslite interpolate``: the network between two, as a weights file like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from training.catalogue import find_model
from training.checkpoint import load_tensors, save_tensors

Cli = Callable[..., Any]


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """CARN-M, a little further."""
    tensors, metadata = load_tensors(find_model("carn-m").path)
    torch.manual_seed(0)
    changed = {name: one + 1e-3 * torch.randn_like(one) for name, one in tensors.items()}
    recipe = json.loads(metadata["recipe"]) | {"name": "taught"}
    training = {"steps": 9, "hours": 0.1, "start": [find_model("carn-m").record]}
    path = tmp_path / "taught.safetensors"
    texts = {"recipe": json.dumps(recipe), "training": json.dumps(training)}
    save_tensors(path, changed, texts)
    return path


def test_every_parameter_lies_between(cli: Cli, taught: Path, tmp_path: Path) -> None:
    ends = [load_tensors(path)[0] for path in (find_model("carn-m").path, taught)]
    for alpha in (0, 0.8, 1):
        out = tmp_path / f"between-{alpha}.safetensors"
        outcome = cli("interpolate", "carn-m", taught, "--alpha", alpha, "--out", out)
        assert outcome.code == 0, outcome.err
        assert outcome.out.strip() == str(out)
        found, _ = load_tensors(out)
        assert found.keys() == ends[0].keys()
        for name, tensor in found.items():
            expected = (1 - alpha) * ends[0][name].double() + alpha * ends[1][name].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)


def test_the_file_is_a_network_that_tells_where_it_comes_from(
    cli: Cli, taught: Path, tmp_path: Path
) -> None:
    out = tmp_path / "between.safetensors"
    assert cli("interpolate", "carn-m", taught, "--alpha", 0.5, "--out", out).code == 0
    model = find_model(str(out))
    assert model.name == "between"
    assert model.at_scale(4)(torch.rand(1, 3, 5, 6)).shape == (1, 3, 20, 24)
    card = yaml.safe_load(cli("models", out).out)
    assert card["training"]["interpolation"] == {"alpha": 0.5}
    known = {find_model(str(one)).sha256 for one in ("carn-m", taught)}
    assert set(card["training"]["start"]) == known
    assert known <= {run["sha256"] for run in card["earlier_runs"]}
    kinds = ["--format", "onnx", "--precision", "float32", "--out", tmp_path / "dist"]
    exported = cli("export", out, "--scale", 2, *kinds)
    assert exported.code == 0, exported.err


def test_what_does_not_go_is_said(cli: Cli, taught: Path, tmp_path: Path) -> None:
    def refused(*arguments: Any) -> str:
        outcome = cli("interpolate", *arguments)
        assert outcome.code == 2
        return str(outcome.err)

    out = ["--out", tmp_path / "new.safetensors"]
    assert "carn: is of another network than carn-m" in refused(
        "carn-m", "carn", "--alpha", 0.5, *out
    )
    assert "is not in the range 0<=x<=1" in refused("carn-m", taught, "--alpha", 1.5, *out)
    same = ["carn-m", taught, "--alpha", 0.5, "--out"]
    assert "exists; choose another --out" in refused(*same, taught)
    assert "weights files end in .safetensors" in refused(*same, tmp_path / "new.pth")
    assert "named after its file" in refused(*same, tmp_path / "a b.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
    assert cli("interpolate", *same, taught, "--overwrite").code == 0
