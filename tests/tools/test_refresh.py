from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy import network_restorer
from reslite.__main__ import main
from runtime.errors import UserError
from tools import refresh
from tools.refresh import RESULTS, SHOWN, publish, redraw_curves, rewrite
from training.catalogue import find_model, list_models
from training.checkpoint import load_tensors, save_tensors
from training.metrics.psnr import psnr
from training.recipe_reading import load_recipe


def test_rewrite_replaces_the_named_sections_only(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- scores -->\nold\n<!-- /scores -->\nb\n<!-- x -->\n<!-- /x -->\n")
    rewrite(page, {"scores": "| new |", "x": "y"})
    expected = "a\n<!-- scores -->\n| new |\n<!-- /scores -->\nb\n<!-- x -->\ny\n<!-- /x -->\n"
    assert page.read_text() == expected
    with pytest.raises(UserError, match="has no section <!-- z -->"):
        rewrite(page, {"z": ""})
    assert page.read_text() == expected


def test_published_weights_know_the_scores_that_evaluate_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random, pictures = np.random.default_rng(0), []
    for folder, count in (("valid", 5), ("b100/HR", 8)):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(count):
            # Of different contrast, so that they differ in how well they are restored.
            picture = random.integers(0, 20 + 10 * index, (16, 20, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{index}.png")
            pictures.append(picture)
    small = ("extraction=[4]", "channels=4", "experts=2", "srirs=1", "blocks=1")
    recipe = load_recipe("mepsnet-s", ["name=mini-s", *(f"network.{one}" for one in small)])
    torch.manual_seed(0)
    weights, folder = tmp_path / "run" / "weights.safetensors", tmp_path / "published"
    weights.parent.mkdir()
    folder.mkdir()
    metadata = {"recipe": recipe.model_dump_json(), "training": json.dumps({"steps": 7})}
    save_tensors(weights, recipe.network.build().state_dict(), metadata)
    monkeypatch.setattr(refresh, "WEIGHTS_FOLDER", folder)

    publish(find_model(str(weights)), tmp_path)
    published = find_model(str(folder / "mini_s.safetensors"))

    restore = network_restorer(published.at_scale(1))
    clean = [psnr(restore(picture), picture) for picture in pictures]
    record = published.training
    assert record["psnr"]["clean"] == {"1": pytest.approx(np.mean(clean), abs=1e-4)}
    assert record["worst"]["clean"] == {"1": pytest.approx(min(clean), abs=1e-4)}
    assert record["worst"]["shdd-easy"]["1"] < record["psnr"]["shdd-easy"]["1"]
    assert record["distorted"]["clean"] is None
    assert record["kinds"]["identity"][0] is None
    assert record["steps"] == 7

    capsys.readouterr()
    options = ["--split", "shdd-test", "--data", str(tmp_path), "--json"]
    assert main(["evaluate", str(published.path), *options]) == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert list(sets) == ["shdd-easy", "shdd-moderate", "shdd-difficult", "clean"]
    for name, found in sets.items():
        assert record["psnr"][name] == {"1": round(found["psnr"], 4)}
        assert record["ssim"][name] == {"1": round(found["ssim"], 4)}
        assert record["worst"][name] == {"1": round(found["worst"]["psnr"], 4)}
    assert [one["pictures"] for one in sets.values()] == [12, 12, 12, 13]
    assert sets["clean"]["distorted"] == {"psnr": None, "ssim": 1}

    before = (tensors, _) = load_tensors(published.path)
    publish(published, tmp_path)  # onto itself
    again, metadata = load_tensors(published.path)
    assert metadata == before[1]
    assert all(torch.equal(again[name], one) for name, one in tensors.items())


def test_shipped_weights_are_published_again_without_their_log(tmp_path: Path) -> None:
    (shipped,) = (one for one in list_models() if one.name == "carn-m")
    figure = tmp_path / "carn-m.svg"
    redraw_curves(shipped.path, figure)
    assert not figure.exists()
    shutil.copy(shipped.path, tmp_path)
    with pytest.raises(UserError, match="holds no TensorBoard log"):
        redraw_curves(tmp_path / shipped.path.name, figure)


def test_the_page_has_a_section_for_everything_that_is_measured_again(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_bytes(RESULTS.read_bytes())
    names = ["scores", "shdd", "multadds", *(f"artifacts {name}" for name in SHOWN)]
    rewrite(page, dict.fromkeys(names, "new"))
    assert page.read_text().count("\nnew\n") == len(names)
