"""Users gate bundles of their own weights, on their pictures, here and in their CI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from export.bundle import bundle_of
from export.sources.source import Source
from export.variants import Variant
from training.catalogue import find_model
from training.checkpoint import save_tensors
from training.recipe_reading import load_recipe

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]
VARIANTS = (
    Variant("onnx", "float32"),
    Variant("tflite", "float32"),
    Variant("tflite", "float16"),
    Variant("coreml", "float32"),
)


def _weights(folder: Path, seed: int) -> Path:
    """Write weights of a tiny network for ×2 that did not ship with reslite."""
    shape = ["network.blocks=1", "network.units=1", "network.channels=8", "network.scales=[2]"]
    recipe = load_recipe("carn-m", ["name=mine", *shape])
    torch.manual_seed(seed)
    path = folder / f"weights{seed}.safetensors"
    save_tensors(path, recipe.network.build().state_dict(), {"recipe": recipe.model_dump_json()})
    return path


def _bundle(weights: Path, folder: Path) -> Path:
    bundle_of(Source.of(find_model(str(weights)), 2), VARIANTS, folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, astronaut: NDArray[np.uint8]) -> Path:
    """A repository: ``weights0``, the bundle ``dist`` of them, pictures and a baseline."""
    folder = tmp_path_factory.mktemp("repository")
    _bundle(_weights(folder, 0), folder / "dist")
    (folder / "photos").mkdir()
    for name, left in (("face", 180), ("flag", 20)):
        crop = astronaut[60:124, left : left + 80]
        Image.fromarray(crop).save(folder / "photos" / f"{name}.png")
    return folder


@pytest.fixture
def repository(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository as the current folder."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ON_PHOTOS = ("gate", "--bundle", "dist", "--baseline", "baseline.json", "--data", "photos")


@pytest.mark.slow
def test_a_bundle_of_own_weights_is_gated_on_own_pictures(cli: Cli, repository: Path) -> None:
    missing = cli(*ON_PHOTOS)
    assert missing.code == 2
    assert "baseline.json: no baseline; make one by adding --update" in missing.err

    made = cli(*ON_PHOTOS, "--update")
    assert made.code == 0, made.err
    basis = "(2 pictures; largest differences are from mine_x2_float32.onnx)"
    assert made.out == f"baseline updated: baseline.json {basis}\n"
    passed = cli(*ON_PHOTOS)
    assert passed.code == 0, passed.out + passed.err
    assert passed.out == f"gate passed: 4 artifacts of mine ×2 are as expected {basis}\n"

    # Other weights under the same name: every file computes something else.
    shutil.rmtree("dist")
    _bundle(_weights(repository, 1), Path("dist"))
    options = ["--json", "--junit", "gate.xml", "--markdown", "gate.md"]
    failed = cli(*ON_PHOTOS, *options)
    assert failed.code == 1
    content = json.loads(failed.out)
    assert content["passed"] is False
    (judged,) = content["bundles"]
    pixels = {
        one["artifact"]
        for one in judged["deviations"]
        if one["quantity"] == "mean change of restored pixels"
    }
    assert pixels == {
        "mine_x2_float32.onnx",
        "mine_x2_float32.tflite",
        "mine_x2_float16.tflite",
    }
    assert ("mine", "weights SHA-256") in {
        (one["artifact"], one["quantity"]) for one in judged["deviations"]
    }
    suite = ElementTree.parse("gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("5", "4")
    accept = f"reslite gate --update {' '.join(ON_PHOTOS[1:])}"
    assert accept in Path("gate.md").read_text(encoding="utf-8")
    assert cli(*accept.split()[1:]).code == 0
    assert cli(*ON_PHOTOS).code == 0


@pytest.mark.slow
def test_other_pictures_are_no_deviation_but_a_mistake(cli: Cli, repository: Path) -> None:
    assert cli(*ON_PHOTOS, "--update").code == 0
    without = cli("gate", "--bundle", "dist", "--baseline", "baseline.json")
    assert without.code == 2
    assert "lacking are face.png, flag.png and additional are astronaut 150,0" in without.err

    picture = repository / "photos" / "face.png"
    Image.fromarray(np.array(Image.open(picture))[:, ::-1]).save(picture)
    mirrored = cli(*ON_PHOTOS)
    assert mirrored.code == 2
    assert "pictures of the same names that show something else" in mirrored.err


@pytest.mark.slow
def test_named_weights_are_what_files_are_compared_with(cli: Cli, repository: Path) -> None:
    weights = ("--weights", "weights0.safetensors")
    made = cli(*ON_PHOTOS, *weights, "--update")
    assert made.code == 0, made.err
    assert "largest differences are from the network" in made.out
    assert cli(*ON_PHOTOS, *weights).code == 0
    without = cli(*ON_PHOTOS)
    assert without.code == 2
    assert "from the network, found mine_x2_float32.onnx (--weights names" in without.err

    other = _weights(repository, 1)
    refused = cli(*ON_PHOTOS, "--weights", other)
    assert refused.code == 2
    assert "weights1.safetensors: SHA-256" in refused.err
    assert "dist was made from weights of" in refused.err


@pytest.mark.slow
def test_damaged_files_become_no_baseline(cli: Cli, repository: Path) -> None:
    file = repository / "dist" / "mine_x2_float32.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"?")

    outcome = cli(*ON_PHOTOS, "--update")

    assert outcome.code == 1
    assert "mine_x2_float32.tflite   SHA-256" in outcome.out
    assert "make the bundle anew" in outcome.out
    assert not (repository / "baseline.json").exists()


def test_what_would_say_nothing_is_refused(cli: Cli, repository: Path) -> None:
    for options, message in (
        (("--baseline", "baseline.json"), "name it with --bundle"),
        (("--bundle", "dist", "--data", "photos"), "--data and --weights go with --baseline"),
        (("--bundle", "dist", "--weights", "w"), "--data and --weights go with --baseline"),
        (("--bundle", "dist"), "dist: holds mine ×2, which reslite has no baseline for"),
    ):
        outcome = cli("gate", *options)
        assert outcome.code == 2
        assert message in outcome.err


def _run_steps(folder: Path, steps: list[dict[str, Any]], home: Path) -> list[int]:
    """Run steps as GitHub does, each in a shell that stops at the first error; return the codes."""
    command = home / "reslite"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reslite "$@"\n')
    command.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(home / "summary.md"),
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
    return [
        subprocess.run([*shell, one["run"]], cwd=folder, env=env, check=False).returncode
        for one in steps
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the workflow's shell is bash")
def test_the_workflow_to_copy_guards_a_bundle(
    cli: Cli, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workflow = yaml.safe_load((ROOT / "docs" / "gate.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    run = [one for one in steps if "run" in one and "pip install" not in one["run"]]
    gate, *others = run
    assert gate["run"].startswith("reslite gate ")
    assert "if" not in gate
    assert all(one["if"].startswith("${{ !cancelled() && hashFiles(") for one in others)
    assert cli("gate", "--bundle", "dist", "--baseline", "baseline.json", "--update").code == 0

    home = tmp_path_factory.mktemp("home")
    assert _run_steps(repository, run, home) == [0, 0]
    assert (home / "summary.md").read_text().startswith("## Gate: mine ×2: passed\n")

    (repository / "dist" / "mine_x2_float16.tflite").unlink()
    home = tmp_path_factory.mktemp("home")
    assert _run_steps(repository, run, home) == [1, 0]
    assert "| `mine_x2_float16.tflite` | – |" in (home / "summary.md").read_text()
    (kept,) = [one["with"]["path"] for one in steps if "upload" in one.get("uses", "")]
    suite = ElementTree.parse(repository / kept).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
