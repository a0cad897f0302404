from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cli = Callable[..., Any]

# The thesis' table (DESIGN.md section 5): parameters, and MultAdds at 1280×720 in G.
TABLE = {
    "carn": ((964_163, 1_148_803, 1_111_875), 1_591_939, (222.8, 118.8, 90.9)),
    "carn-m": ((257_027, 303_427, 294_147), 414_787, (91.2, 46.1, 32.5)),
}


def test_models_json_gives_the_published_costs(cli: Cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli("models", "--json").out)}
    assert rows.keys() == {*TABLE, "mepsnet", "mepsnet-s", "pcarn", "pcarn-m"}
    for name, (parameters, together, multadds) in TABLE.items():
        row = rows[name]
        assert row["scales"] == [2, 3, 4]
        assert row["parameters"] == {
            **dict(zip("234", parameters, strict=True)),
            "all": together,
        }
        for scale, expected in zip("234", multadds, strict=True):
            assert row["multadds_720p"][scale] / 1e9 == pytest.approx(expected, abs=0.05)
        assert row["trained"]
        assert row["psnr"]["set5"]["4"] > 30
        perceptual = rows[f"p{name}"]
        assert (perceptual["trained"], perceptual["psnr"]) == (False, {})
        for key in ("parameters", "multadds_720p", "scales"):
            assert perceptual[key] == row[key]


def test_an_untrained_network_is_listed_and_answered_with_its_recipe(cli: Cli) -> None:
    lines = [line for line in cli("models").out.splitlines() if line.startswith("pcarn-m")]
    assert len(lines) == 3
    assert all(line.endswith("not trained yet") for line in lines)
    outcome = cli("export", "pcarn-m", "--scale", 4)
    assert outcome.code == 2
    assert "pcarn-m: ships as a recipe without weights; train it with" in outcome.err


@pytest.mark.parametrize(
    ("name", "parameters", "least", "most"),
    # 2,241,187 parameters and 8.8 T: issue 3; mepsnet-s has to cost an eighth at the most.
    [("mepsnet", 2_241_187, 8.8e12, 8.85e12), ("mepsnet-s", 340_819, 0, 8.8218e12 / 8)],
)
def test_mepsnets_are_listed_with_their_cost_and_every_level(
    cli: Cli, name: str, parameters: int, least: float, most: float
) -> None:
    (row,) = json.loads(cli("models", name, "--json").out)
    assert row["scales"] == [1]
    assert row["parameters"]["1"] == row["parameters"]["all"] == parameters
    assert least <= row["multadds_720p"]["1"] <= most
    # Networks published before there were clean pictures have no score of them.
    clean = {"clean"} if name == "mepsnet-s" else set()
    assert set(row["psnr"]) == {"shdd-easy", "shdd-moderate", "shdd-difficult"} | clean
    table = cli("models").out
    assert name in table
    assert "shdd-moderate" in table


def test_models_prints_a_table_and_a_card(cli: Cli) -> None:
    table = cli("models").out
    assert "carn-m" in table
    assert "294,147" in table
    card = cli("models", "carn-m").out
    for fact in ("recipe", "steps", "hours", "machine", "seed", "414787"):
        assert fact in card


@pytest.mark.parametrize("name", ["carn", "carn-m", "mepsnet", "mepsnet-s"])
def test_a_card_tells_every_run_before_once(cli: Cli, name: str) -> None:
    card = yaml.safe_load(cli("models", name).out)
    earlier = [run["sha256"] for run in card["earlier_runs"]]
    assert len(earlier) == len(set(earlier))
    efforts = [
        (run["steps"], run["hours"], run["machine"], run.get("recipe", {}).get("seed"))
        for run in card["earlier_runs"]
    ]
    assert len(efforts) == len(set(efforts))
    for run in (card["training"], *card["earlier_runs"]):
        assert set(run["start"]) <= set(earlier)
    assert len(card["training"]["start"]) == len(set(card["recipe"]["start"]))


EXTRAS = ("torch", "safetensors", "pydantic", "yaml", "onnx", "onnx_ir", "skimage", "jinja2")

BASE_ONLY = f"""
import sys
from reslite.__main__ import main
for name in {EXTRAS}:
    sys.modules[name] = None  # an import of it fails
sys.exit(main(sys.argv[1:]))
"""


def _in_base_installation(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BASE_ONLY, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_list_needs_the_base_installation_only(cli: Cli) -> None:
    for arguments in (["models"], ["models", "--json"]):
        done = _in_base_installation(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == cli(*arguments).out
    named = _in_base_installation("models", "carn")
    assert named.returncode == 2
    assert "pip install 'reslite[export]'" in named.stderr
