"""A MEPSNet through the command line: distort, train, export, restore, evaluate, explain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from runtime.manifest import read_manifest
from training.catalogue import find_model

Cli = Callable[..., Any]

RECIPE = {
    "version": 2,
    "name": "mini",
    "network": {
        "family": "mepsnet",
        "extraction": [8, 8],
        "channels": 8,
        "experts": 2,
        "srirs": 1,
        "blocks": 1,
        "templates": 16,
    },
    "degradation": [{"kind": "shdd", "level": "moderate"}],
    "stages": [{"steps": 6, "patch": 16, "batch": 2}],
    "optimizer": {"learning_rate": 0.001, "clip_norm": 1.0, "warmup": 2, "decay": 2},
    "losses": [{"kind": "l2"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a few steps, their float32 and int8 files, and pictures."""
    from skimage import data

    from reslite.__main__ import main

    folder = tmp_path_factory.mktemp("mepsnet")
    astronaut = data.astronaut()  # type: ignore[no-untyped-call]
    for part in ("train", "valid"):
        (folder / part).mkdir()
        Image.fromarray(astronaut[40:136, 180:300]).save(folder / part / "astronaut.png")
    (folder / "mini.yaml").write_text(yaml.safe_dump(RECIPE))
    run = folder / "run"
    assert main(["train", str(folder / "mini.yaml"), "--data", str(folder), "--out", str(run)]) == 0
    weights = str(run / "weights.safetensors")
    table, dist = str(folder / "scales.json"), str(folder / "dist")
    options = ["--calibration", str(folder / "train"), "--out", table]
    assert main(["quantize", weights, *options]) == 0
    formats = ["--format", "onnx", "--format", "tflite"]
    precisions = ["--precision", "float32", "--precision", "int8"]
    options = [*formats, *precisions, "--scales", table, "--out", dist]
    assert main(["export", weights, *options]) == 0
    return folder


def test_export_brings_the_files_that_restore_tiles(folder: Path) -> None:
    manifest = read_manifest(folder / "dist")
    assert manifest is not None
    assert (manifest.scale, manifest.halo) == (1, 8)
    names = {
        f"mini_x1_{p}{t}.{s}"
        for p in ("float32", "int8")
        for t in ("", "_tiled")
        for s in ("onnx", "tflite")
    }
    assert {one.file for one in manifest.artifacts} == names


def test_restore_gives_the_same_picture_whole_and_in_tiles(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    photo = folder / "train" / "astronaut.png"
    for file, quanta in (("mini_x1_float32.onnx", 0), ("mini_x1_int8.tflite", 2)):
        pixels = []
        for name, options in (("whole", []), ("tiled", ["--tile", 24])):
            out = tmp_path / f"{name}_{file}.png"
            outcome = cli("restore", photo, "--model", folder / "dist" / file, "-o", out, *options)
            assert outcome.code == 0, outcome.err
            pixels.append(np.array(Image.open(out)).astype(int))
        assert pixels[0].shape == (96, 120, 3)
        assert np.abs(pixels[0] - pixels[1]).max() <= quanta + 1  # float32: rounding at .5


def test_the_file_of_the_tiles_restores_pictures_too(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    photo = folder / "train" / "astronaut.png"
    model = folder / "dist" / "mini_x1_float32_tiled.tflite"
    assert cli("restore", photo, "--model", model, "-o", tmp_path / "a.png").code == 0
    other = folder / "dist" / "mini_x1_float32.tflite"
    assert cli("restore", photo, "--model", other, "-o", tmp_path / "b.png").code == 0
    a, b = (np.array(Image.open(tmp_path / f"{name}.png")).astype(int) for name in "ab")
    assert np.abs(a - b).max() <= 1


def test_a_missing_companion_is_named(cli: Cli, folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "dist", tmp_path / "dist")
    (tmp_path / "dist" / "mini_x1_int8_tiled.tflite").unlink()
    photo, model = folder / "train" / "astronaut.png", tmp_path / "dist" / "mini_x1_int8.tflite"
    whole = cli("restore", photo, "--model", model, "-o", tmp_path / "a.png")
    assert whole.code == 0
    tiled = cli("restore", photo, "--model", model, "-o", tmp_path / "b.png", "--tile", 24)
    assert tiled.code == 2
    assert "mini_x1_int8_tiled.tflite: no such file" in tiled.err
    assert not (tmp_path / "b.png").exists()


def test_latencies_of_files_that_restore_tiles_are_not_taken(cli: Cli, folder: Path) -> None:
    files = [folder / "dist" / f"mini_x1_float32{part}.tflite" for part in ("", "_tiled")]
    outcome = cli("bench", *files, "--size", "32x32", "--starts", 1, "--rounds", 1, "--json")
    assert outcome.code == 0, outcome.err
    assert f"left out, for they restore tiles: {files[1]}" in outcome.err
    assert [row["name"] for row in json.loads(outcome.out)["rows"]] == [str(files[0])]


def test_transparency_is_left_as_it_is_and_the_name_says_restored(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    model = folder / "dist" / "mini_x1_float32.onnx"
    outcome = cli("restore", tmp_path / "photo.png", "--model", model)
    assert outcome.out.strip() == str(tmp_path / "photo_restored.png")
    restored = np.array(Image.open(tmp_path / "photo_restored.png"))
    np.testing.assert_array_equal(restored[..., 3], pixels[..., 3])


def test_datasets_are_made_and_evaluated(cli: Cli, folder: Path, tmp_path: Path) -> None:
    options = ["--level", "difficult", "--in", folder / "train", "--out", tmp_path / "shdd"]
    outcome = cli("make-dataset", "shdd", *options, "--versions", 3)
    assert outcome.code == 0, outcome.err
    assert "1 pictures, 3 distorted versions" in outcome.out
    assert "3 already existed" in cli("make-dataset", "shdd", *options, "--versions", 3).out
    (folder / "train" / "damaged.png").write_bytes(b"no picture")
    outcome = cli("make-dataset", "shdd", *options, "--versions", 3)
    assert outcome.code == 2
    assert "damaged.png: " in outcome.err
    assert "1 failed: mend or remove them" in outcome.err
    (folder / "train" / "damaged.png").unlink()
    weights = folder / "run" / "weights.safetensors"
    result = json.loads(cli("evaluate", weights, "--data", tmp_path / "shdd", "--json").out)
    assert result["pictures"] == 3
    kinds = {
        region["kind"]
        for path in (tmp_path / "shdd" / "LR").glob("*.json")
        for region in json.loads(path.read_text())["regions"]
    }
    assert set(result["kinds"]) == kinds
    assert result["distorted"]["psnr"] < 40
    # The same from an exported file, and from pictures that are distorted on the way.
    file = folder / "dist" / "mini_x1_float32.tflite"
    again = json.loads(cli("evaluate", file, "--data", tmp_path / "shdd", "--json").out)
    assert again["psnr"] == pytest.approx(result["psnr"], abs=1e-3)
    given = cli("evaluate", weights, "--data", tmp_path / "shdd", "--level", "easy")
    assert given.code == 2
    assert "--level easy: applies to pictures without distorted versions" in given.err
    shown = cli("evaluate", weights, "--data", folder / "train", "--level", "easy").out
    assert "mean of 1" in shown
    assert "distorted" in shown
    assert "regions" in shown


def test_untouched_pictures_are_scored_against_themselves(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    weights, photos = folder / "run" / "weights.safetensors", folder / "valid"
    options = ["--data", photos, "--level", "untouched"]
    restored = tmp_path / "restored.png"
    assert cli("restore", photos / "astronaut.png", "--model", weights, "-o", restored).code == 0
    found, original = (np.array(Image.open(one)) for one in (restored, photos / "astronaut.png"))
    error = np.mean((found.astype(float) - original) ** 2)
    expected = 10 * np.log10(255**2 / error)

    result = json.loads(cli("evaluate", weights, *options, "--json").out)

    assert result["psnr"] == pytest.approx(expected, abs=0.05)  # rounded on another way
    assert result["worst"] == {"picture": "astronaut.png", "psnr": result["psnr"]}
    assert result["distorted"] == {"psnr": None, "ssim": 1}
    assert result["kinds"] == {"identity": {"before": None, "after": pytest.approx(result["psnr"])}}
    shown = cli("evaluate", weights, *options).out.splitlines()
    assert shown[-2].split() == ["distorted", "equal", "1.0000"]
    assert shown[-1].split() == ["identity", "regions", f"{expected:.2f}", "dB"]


def test_the_gate_holds_a_file_to_what_it_does_to_clean_pictures(
    cli: Cli, folder: Path, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    photos, path = tmp_path / "photos", tmp_path / "baseline.json"
    photos.mkdir()
    Image.fromarray(astronaut[40:90, 180:250]).save(photos / "dark.png")
    Image.fromarray(astronaut[300:360, 20:84]).save(photos / "light.png")
    options = ["--bundle", folder / "dist", "--baseline", path, "--data", photos]
    assert cli("gate", *options, "--update").code == 0
    baseline = json.loads(path.read_text())
    (quality,) = (
        one["quality"] for one in baseline["artifacts"] if one["file"] == "mini_x1_float32.onnx"
    )

    weights = folder / "run" / "weights.safetensors"
    scored = ["evaluate", weights, "--data", photos, "--level", "untouched", "--json"]
    worst = json.loads(cli(*scored).out)["worst"]["psnr"]
    assert quality["clean"] == pytest.approx(worst, abs=0.02)

    assert cli("gate", *options).code == 0
    quality["clean"] += 0.2  # the file spoils them more than it did
    path.write_text(json.dumps(baseline))
    outcome = cli("gate", *options)
    assert outcome.code == 1
    assert outcome.out.count("PSNR dB of clean pictures") == 1
    del quality["clean"]  # as in older baselines
    path.write_text(json.dumps(baseline))
    assert cli("gate", *options).code == 0


def test_the_pictures_of_a_split_are_named_when_they_cannot_be_found(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESLITE_DATA", raising=False)
    weights = folder / "run" / "weights.safetensors"
    outcome = cli("evaluate", weights, "--split", "shdd-test")
    assert outcome.code == 2
    assert "the folder that holds valid/, b100/HR/ with --data or RESLITE_DATA" in outcome.err
    monkeypatch.setenv("RESLITE_DATA", str(folder))
    outcome = cli("evaluate", weights, "--split", "shdd-test")
    assert outcome.code == 2
    assert "valid: holds 1 pictures, SHDD easy takes 4 of it; complete the folder" in outcome.err


def test_a_published_score_is_found_again(cli: Cli, standard_data: Path) -> None:
    options = ["--scale", 4, "--split", "set5", "--data", standard_data]
    found = json.loads(cli("evaluate", "carn-m", *options, "--json").out)
    assert found["split"] == "set5"
    assert list(found["sets"]) == ["set5"]
    published = find_model("carn-m").training
    assert found["sets"]["set5"]["psnr"] == pytest.approx(published["psnr"]["set5"]["4"], abs=1e-3)
    assert found["sets"]["set5"]["bicubic"]["psnr"] == pytest.approx(28.42, abs=0.005)  # CARN paper


def test_a_dataset_without_originals_is_refused(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for name in ("HR", "LR"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "HR" / "a.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "LR" / "b_01.png")
    weights = folder / "run" / "weights.safetensors"
    outcome = cli("evaluate", weights, "--data", tmp_path)
    assert outcome.code == 2
    assert "b_01.png: its original is missing" in outcome.err


def test_explain_draws_every_expert(
    cli: Cli, folder: Path, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    weights, photo = folder / "run" / "weights.safetensors", folder / "train" / "astronaut.png"
    out = tmp_path / "experts.png"
    outcome = cli("explain", weights, photo, "-o", out, "--distort", "moderate")
    assert outcome.code == 0, outcome.err
    assert min(Image.open(out).size) > 300
    assert cli("explain", weights, photo, "-o", out).code == 2
    assert (
        "has no experts to look at" in cli("explain", "carn-m", photo, "-o", tmp_path / "a.png").err
    )
    assert "name it *.png" in cli("explain", weights, photo, "-o", tmp_path / "a.jpg").err
    Image.new("RGB", (1001, 1000)).save(tmp_path / "large.png")
    large = cli("explain", weights, tmp_path / "large.png")
    assert large.code == 2
    assert "too large" in large.err


def test_a_scale_that_a_network_does_not_have_is_refused(cli: Cli, folder: Path) -> None:
    weights = folder / "run" / "weights.safetensors"
    outcome = cli("export", weights, "--scale", 2)
    assert outcome.code == 2
    assert "scale 2 was not trained; choose one of 1" in outcome.err
    assert "name the upscaling factor with --scale: 2, 3, 4" in cli("export", "carn-m").err


def test_a_recipe_is_changed_on_the_command_line(cli: Cli, folder: Path, tmp_path: Path) -> None:
    recipe, out = folder / "mini.yaml", tmp_path / "run"
    options = ["--data", folder, "--out", out, "--set", "network.experts=1"]
    outcome = cli("train", recipe, *options, "--set", "network.sharing=false")
    assert outcome.code == 0, outcome.err
    card = cli("models", out / "weights.safetensors").out
    assert "experts: 1" in card
    assert "sharing: false" in card
    assert cli("train", recipe, *options, "--set", "network.expert=1").code == 2
