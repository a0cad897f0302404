"""From a trained network to a restored picture, through the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import reslite
from quantize import scales_path
from runtime.errors import UserError
from runtime.manifest import read_manifest
from training.checkpoint import save_tensors
from training.degradations.bicubic import reduce
from training.metrics.psnr import psnr
from training.recipe_reading import load_recipe

Cli = Callable[..., Any]

pytestmark = pytest.mark.slow


def test_the_bundle_proves_its_files(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest is not None
    assert (manifest.model, manifest.scale, manifest.halo) == ("carn-m", 4, 21)
    differences = {a.file: a.measured.max_abs_diff for a in manifest.artifacts}
    assert set(differences) == {
        f"carn_m_x4_{precision}.{suffix}"
        for precision in ("float32", "int8")
        for suffix in ("onnx", "tflite")
    }
    assert all(value <= 1e-5 for name, value in differences.items() if "float32" in name)
    assert manifest.training["steps"] > 0
    assert {a.calibration is not None for a in manifest.artifacts if a.precision == "int8"} == {
        True
    }


def test_a_second_export_keeps_what_is_valid_and_mends_what_is_not(
    cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    (folder / "carn_m_x4_float32.onnx").write_bytes(b"damaged")
    (folder / "carn_m_x4_int8.tflite").unlink()
    options = ["--scale", 4, "--format", "onnx", "--format", "tflite", "--out", folder]
    outcome = cli("export", "carn-m", *options, "--precision", "float32", "--precision", "int8")
    assert outcome.code == 0, outcome.err
    verbs = dict(reversed(line.split(maxsplit=1)) for line in outcome.out.splitlines()[:4])
    assert verbs == {
        "carn_m_x4_float32.onnx": "exported",
        "carn_m_x4_int8.onnx": "kept",
        "carn_m_x4_float32.tflite": "kept",
        "carn_m_x4_int8.tflite": "exported",
    }
    for name in verbs:
        assert (folder / name).read_bytes() == (bundle / name).read_bytes()


def test_fixed_and_flexible_sizes_reach_the_files(cli: Cli, tmp_path: Path) -> None:
    options = ["--scale", 4, "--precision", "float32", "--out", tmp_path]
    fixed = cli("export", "carn-m", *options, "--format", "tflite", "--size", "20x24")
    coreml = ["--format", "coreml"]
    flexible = cli("export", "carn-m", *options, *coreml, "--flexible", "16-512")
    assert (fixed.code, flexible.code) == (0, 0), fixed.err + flexible.err
    assert "runs a range of sizes on the GPU or the CPU" in flexible.err
    images = cli("export", "carn-m", *options, *coreml, "--image-io", "--size", "20x24")
    assert (images.code, images.err) == (0, "")
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    shapes = {artifact.file: artifact.input.shape for artifact in manifest.artifacts}
    assert shapes == {
        "carn_m_x4_float32_20x24.tflite": (1, 20, 24, 3),
        "carn_m_x4_float32_16to512.mlpackage": (1, 3, None, None),
        "carn_m_x4_float32_image_io_20x24.mlpackage": (1, 20, 24, 3),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("model", "scale"), [("carn-m", 4), ("mepsnet-s", 1)])
def test_core_ai_is_written_proven_and_restores(
    model: str, scale: int, cli: Cli, tmp_path: Path, photo: Path
) -> None:
    pytest.importorskip("coreai", reason="Core AI is beta and an extra")
    options = ["--scale", scale, "--format", "coreai", "--size", "24x24", "--out", tmp_path]
    outcome = cli("export", model, *options)
    assert outcome.code == 0, outcome.err
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [artifact.precision for artifact in manifest.artifacts] == ["float16", "float32", "int8"]
    assert all(artifact.measured.max_abs_diff is not None for artifact in manifest.artifacts)
    restored, given = tmp_path / "restored.png", tmp_path / "given.png"
    with Image.open(photo) as picture:
        picture.convert("RGB").resize((24, 24)).save(given)
    file = tmp_path / f"{model.replace('-', '_')}_x{scale}_float32_24x24.aimodel"
    done = cli("restore", given, "--model", file, "-o", restored)
    assert done.code == 0, done.err
    with Image.open(restored) as picture:
        assert picture.size == (24 * scale, 24 * scale)


def test_a_missing_core_ai_is_named_with_its_command(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    own = _own_weights(tmp_path / "own.safetensors", 0.1)
    monkeypatch.setattr("runtime.engines.coreai_library.metadata.version", missing)
    both = ["--format", "onnx", "--format", "coreai", "--precision", "float32"]
    for verb, options in (("export", both), ("ship", ["--format", "coreai"])):
        outcome = cli(verb, own, "--scale", 2, *options, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert "pip install 'reslite[coreai]'" in outcome.err
        assert not (tmp_path / "out").exists(), "before the first file is made"


def test_a_file_that_fails_its_proof_does_not_stay(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = _own_weights(tmp_path / "own.safetensors", 1e30)  # its activations overflow
    options = ["--scale", 2, "--format", "tflite", "--precision", "float32"]
    for _ in range(2):
        outcome = cli("export", weights, *options, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert "differs from its source by nan" in outcome.err
        restored = cli("restore", photo, "--model", weights, "--scale", 2)
        assert restored.code == 2
        assert "differs from its source by nan" in restored.err
    assert not list(tmp_path.rglob("*.tflite"))
    assert read_manifest(tmp_path / "out").artifacts == ()


def test_other_weights_and_damaged_manifests_are_replaced_only_if_told(
    cli: Cli, tmp_path: Path
) -> None:
    options = ["--scale", 2, "--precision", "float32", "--out", tmp_path / "out"]
    tflite, onnx = ("--format", "tflite"), ("--format", "onnx")
    first = _own_weights(tmp_path / "first.safetensors", 0.1)
    assert cli("export", first, *options, *tflite, *onnx).code == 0
    second = _own_weights(tmp_path / "second.safetensors", 0.2)
    refused = cli("export", second, *options, *tflite)
    assert refused.code == 2
    assert "holds files of other weights of own" in refused.err
    replaced = cli("export", second, *options, *tflite, "--overwrite")
    assert replaced.code == 0
    assert "removed   own_x2_float32.onnx" in replaced.out
    assert [one.name for one in (tmp_path / "out").glob("own*")] == ["own_x2_float32.tflite"]

    (tmp_path / "out" / "manifest.json").write_text("{")
    damaged = cli("export", second, *options, *tflite)
    assert damaged.code == 2
    assert "export the bundle again, with --overwrite" in damaged.err
    assert cli("export", second, *options, *tflite, "--overwrite").code == 0
    (tmp_path / "out" / "own_x2_float32.tflite").unlink()
    listed = cli("export", second, *options, *onnx)
    assert "tflite" not in listed.out


def _own_weights(path: Path, value: float) -> Path:
    recipe = load_recipe("carn-m", ["name=own", "network.blocks=1", "network.channels=8"])
    network = recipe.network.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    save_tensors(path, network.state_dict(), {"recipe": recipe.model_dump_json()})
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx", "--profile", "ethos-u"], "profile ethos-u is for tflite"),
        (["--size", "8x8", "--flexible", "16-32"], "choose one"),
        (["--format", "onnx", "--flexible", "16-32"], "--flexible is for Core ML"),
        (["--precision", "float32", "--float-io"], "--float-io is for int8 TFLite"),
        (["--format", "onnx", "--image-io"], "--image-io is for Core ML packages"),
        (["--format", "coreml", "--image-io", "--float16-io"], "takes one of them"),
        (["--format", "coreml", "--float16-io"], "ask for --precision float16"),
    ],
)
def test_options_that_would_say_nothing_are_refused(
    cli: Cli, options: list[str], message: str
) -> None:
    outcome = cli("export", "carn-m", "--scale", 4, *options)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_table_that_no_file_needs_is_told_and_not_read(cli: Cli, tmp_path: Path) -> None:
    options = ["--format", "onnx", "--precision", "float32", "--out", tmp_path]
    outcome = cli("export", "carn-m", "--scale", 4, *options, "--scales", "absent.json")
    assert outcome.code == 0
    assert outcome.err == "absent.json: not used, because no int8 file is asked for\n"
    assert (tmp_path / "carn_m_x4_float32.onnx").exists()


def test_a_size_beyond_the_memory_is_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "dist"
    for verb in ("export", "ship"):
        outcome = cli(verb, "carn-m", "--scale", 4, "--size", "100000x100000", "--out", out)
        assert outcome.code == 2
        assert "an input of 100000x100000 takes" in outcome.err
        assert not out.exists()


def test_dead_activations_take_any_scale(
    cli: Cli, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    weights = _own_weights(tmp_path / "own.safetensors", 0.0)
    Image.fromarray(astronaut[:200, :200]).save(tmp_path / "a.png")
    table, out = tmp_path / "t.json", tmp_path / "out"
    options = ["--scale", 2, "--calibration", tmp_path, "--out", table]
    assert cli("quantize", weights, *options).code == 0
    exported = cli("export", weights, "--scale", 2, "--scales", table, "--out", out)
    assert exported.code == 0, exported.err
    assert len(list(out.glob("own_x2_int8.*"))) == 3


def test_scales_of_another_scale_are_refused(cli: Cli, tmp_path: Path) -> None:
    options = ["--scale", 2, "--format", "onnx", "--precision", "int8", "--out", tmp_path]
    outcome = cli("export", "carn-m", *options, "--scales", scales_path("carn-m", 4))
    assert outcome.code == 2
    assert "another scale than ×2" in outcome.err
    assert not list(tmp_path.iterdir())


def test_scales_of_other_weights_are_refused(cli: Cli, tmp_path: Path) -> None:
    options = ["--scale", 4, "--format", "onnx", "--precision", "int8", "--out", tmp_path]
    outcome = cli("export", "carn", *options, "--scales", scales_path("carn-m", 4))
    assert outcome.code == 2
    assert "made for other weights" in outcome.err
    assert not list(tmp_path.glob("*.onnx"))


def test_another_models_bundle_is_not_mixed_in(cli: Cli, bundle: Path) -> None:
    outcome = cli("export", "carn", "--scale", 4, "--format", "onnx", "--out", bundle)
    assert outcome.code == 2
    assert "holds a bundle of carn-m ×4" in outcome.err


@pytest.mark.parametrize("file", ["carn_m_x4_int8.tflite", "carn_m_x4_float32.onnx"])
def test_restore_beats_bicubic(
    cli: Cli, bundle: Path, tmp_path: Path, astronaut: NDArray[np.uint8], file: str
) -> None:
    reference = astronaut[0:256, 120:376]
    small = reduce(reference, 4)
    Image.fromarray(small).save(tmp_path / "small.png")
    outcome = cli("restore", tmp_path / "small.png", "--model", bundle / file)
    assert outcome.code == 0, outcome.err
    restored = np.array(Image.open(tmp_path / "small_x4.png"))
    bicubic = np.array(Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC))
    assert psnr(restored, reference) > psnr(bicubic, reference) + 1

    again = cli("restore", tmp_path / "small.png", "--model", bundle / file)
    assert again.code == 2
    assert "--overwrite" in again.err


def test_restore_finishes_the_good_pictures_and_names_the_bad(
    cli: Cli, bundle: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:60])
    model = bundle / "carn_m_x4_int8.tflite"
    outcome = cli("restore", tmp_path, "--model", model, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "cut.png" in outcome.err
    assert "1 restored, 0 already exist, 1 failed" in outcome.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_a_changed_file_is_refused_unless_told_otherwise(
    cli: Cli, bundle: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(bundle, folder)
    path = folder / "carn_m_x4_int8.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    outcome = cli("restore", photo, "--model", path)
    assert outcome.code == 2
    assert "SHA-256 differs from manifest.json" in outcome.err
    assert cli("restore", photo, "--model", path, "--no-verify").code == 0


def test_a_renamed_file_is_recognized(cli: Cli, bundle: Path, photo: Path, tmp_path: Path) -> None:
    shutil.copy(bundle / "carn_m_x4_int8.tflite", tmp_path / "model.onnx")
    outcome = cli("restore", photo, "--model", tmp_path / "model.onnx")
    assert outcome.code == 2
    assert "TFLite" in outcome.err


def test_restore_needs_no_torch(bundle: Path, photo: Path) -> None:
    code = (
        "import sys; from reslite.__main__ import main;"
        f"code = main(['restore', {str(photo)!r}, '--model', "
        f"{str(bundle / 'carn_m_x4_int8.tflite')!r}]);"
        "heavy = {'torch', 'onnx', 'tensorflow', 'coremltools'} & set(sys.modules);"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_evaluate_scores_networks_and_files_alike(
    cli: Cli, bundle: Path, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(astronaut[:192, 150:342]).save(pictures / "a.png")
    network = json.loads(cli("evaluate", "carn-m", "--scale", 4, "--data", pictures, "--json").out)
    file = bundle / "carn_m_x4_float32.tflite"
    artifact = json.loads(cli("evaluate", file, "--data", pictures, "--json").out)
    assert set(network) == {"psnr", "ssim", "pictures", "worst", "bicubic", "kinds"}
    assert network["psnr"] > network["bicubic"]["psnr"] + 1
    assert network["pictures"] == 1
    assert artifact["psnr"] == pytest.approx(network["psnr"], abs=1e-3)
    assert "mean of 1" in cli("evaluate", file, "--data", pictures).out
    mismatch = cli("evaluate", file, "--scale", 2, "--data", pictures)
    assert mismatch.code == 2
    assert cli("evaluate", file, "--level", "easy", "--data", pictures).code == 2
    alike = json.loads(cli("evaluate", file, "--data", pictures, "--against", file, "--json").out)
    assert alike["psnr"] is None  # equal, and so without a finite PSNR
    int8 = bundle / "carn_m_x4_int8.tflite"
    near = cli("evaluate", int8, "--data", pictures, "--against", "carn-m", "--json")
    assert network["psnr"] + 10 < json.loads(near.out)["psnr"] < 60


def test_evaluate_measures_what_is_asked_for(
    cli: Cli, given_weights_folder: Path, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    for name, left in (("a.png", 150), ("b.png", 100)):
        Image.fromarray(astronaut[:200, left : left + 200]).save(tmp_path / name)
    carn = ["evaluate", "carn-m", "--scale", 4, "--data", tmp_path]
    found = json.loads(cli(*carn, "--metrics", "lpips,niqe,psnr", "--json").out)
    assert set(found) == {"psnr", "lpips", "niqe", "pictures", "worst", "bicubic", "kinds"}
    assert 0.02 < found["lpips"] < found["bicubic"]["lpips"] - 0.02  # less is better
    assert found["niqe"] < found["bicubic"]["niqe"] - 0.5
    table = cli(*carn, "--metrics", "ssim, lpips, niqe").out.splitlines()
    assert table[0].split() == ["picture", "PSNR-Y", "SSIM-Y", "LPIPS", "NIQE"]
    mean = [line.split() for line in table if line.startswith("mean of 2")]
    assert mean[0][-2:] == [f"{found['lpips']:.4f}", f"{found['niqe']:.3f}"]


def test_evaluate_says_which_weights_a_metric_needs(
    cli: Cli, tmp_path: Path, astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(astronaut[:64, :64]).save(tmp_path / "a.png")
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path))
    carn = ["evaluate", "carn-m", "--scale", 4, "--data", tmp_path, "--metrics"]
    assert "alexnet_features.safetensors: no such file; LPIPS needs it" in cli(*carn, "lpips").err
    unknown = cli(*carn, "psnr,lpip")
    assert unknown.code == 2
    assert "found 'lpip'); did you mean 'lpips'?" in unknown.err


def test_the_python_interface_restores(
    bundle: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    picture = np.array(Image.open(photo))
    by_file = reslite.load(str(bundle / "carn_m_x4_float32.tflite")).restore(picture)
    assert by_file.shape == (192, 256, 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    by_name = reslite.load("carn-m", scale=4).restore(picture)
    np.testing.assert_array_equal(by_name, by_file)
    (cached,) = tmp_path.rglob("carn_m_x4_float32.tflite")
    cached.write_bytes(cached.read_bytes() + b"damage")
    again = reslite.load("carn-m", scale=4).restore(picture)
    np.testing.assert_array_equal(again, by_file)
    with pytest.raises(UserError, match="restores ×4, not ×2"):
        reslite.load(str(cached), scale=2)
    with pytest.raises(UserError, match="the precision of a file is fixed"):
        reslite.load(str(cached), precision="int8")
    with pytest.raises(UserError, match="H × W × 3 of uint8 or uint16"):
        reslite.load("carn-m", scale=4).restore(picture.astype(np.float32))
    with pytest.raises(UserError, match="found list: numpy"):
        reslite.load("carn-m", scale=4).restore(picture.tolist())
    with pytest.raises(UserError, match="found uint8 0×64×3 without pixels"):
        reslite.load("carn-m", scale=4).restore(picture[:0])
    assert [model.name for model in reslite.list_models()] == [
        "carn",
        "carn-m",
        "mepsnet",
        "mepsnet-s",
    ]


def _listen_to_ctrl_c() -> None:
    # A shell starts background jobs with SIGINT ignored, and processes inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_restored_pictures_and_leaves_no_partial_ones(
    bundle: Path, photo: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    picture = Image.open(photo).resize((160, 160))
    for index in range(40):
        picture.save(folder / f"{index:02}.png")
    command = [sys.executable, "-m", "reslite", "restore", str(folder), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--model", str(bundle / "carn_m_x4_int8.tflite")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=_listen_to_ctrl_c,
    )
    while not (out / "01.png").exists():
        assert process.poll() is None
        time.sleep(0.002)
    time.sleep(0.1)  # into the next picture
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "interrupted; finished work is kept" in errors
    done = sorted(path.name for path in out.iterdir())
    assert done[0] == "00.png"
    assert 2 <= len(done) < 40
    for name in done:
        assert Image.open(out / name).size == (640, 640)
