"""Manifests survive their files, and files that are not manifests are refused with a clear line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UserError
from runtime.manifest import (
    MANIFEST,
    Artifact,
    Calibration,
    HalfPrecision,
    Manifest,
    Measured,
    TensorInfo,
    read_manifest,
    sha256_of,
    size_of,
    verify,
)


def _manifest(sha256: str = "00") -> Manifest:
    image = TensorInfo("image", "NHWC", "int8", (1, None, None, 3), 0.0, 1.0, 1 / 255, -128)
    float16 = Artifact(
        "a_x4_float16.onnx", "onnx", "float16", "11", 9, TensorInfo("image", "NCHW", "float16",
        (1, 3, 48, 48)), TensorInfo("restored_image", "NCHW", "float16", (1, 3, 192, 192)),
        "ort-cpu", (), 32_500_000_000, {"Conv": 3},
        float16=HalfPrecision(11.5, 5696.0, "body.3", 57.5, 71.0, 11),
    )  # fmt: skip
    int8 = Artifact(
        "a_x4_int8.tflite", "tflite", "int8", sha256, 10, image,
        dataclasses.replace(image, name="restored_image"), "litert-cpu", ("dense", "dcr"), 7,
        {"CONV_2D": 2, "DEPTH_TO_SPACE": 1}, Calibration(("one.png", "two.png"), "22"),
        Measured(max_abs_diff=0.01, psnr=30.5, latency_median_ms=4),
    )  # fmt: skip
    training = {"recipe": "carn", "steps": 10, "scores": [1.5, None, True]}
    return Manifest("a", 4, 21, "33", training, {"numpy": "2.4"}, (float16, int8))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = _manifest().write(tmp_path)

    assert path == tmp_path / "manifest.json"
    assert read_manifest(tmp_path) == _manifest()
    assert read_manifest(tmp_path).artifact("a_x4_int8.tflite") == _manifest().artifacts[1]
    assert read_manifest(tmp_path).artifact("b.tflite") is None


def test_manifests_from_before_half_arithmetic_was_executed_are_read(tmp_path: Path) -> None:
    path = _manifest().write(tmp_path)
    content = json.loads(path.read_text())
    for entry in content["artifacts"]:
        del entry["float16"]
    path.write_text(json.dumps(content))

    found = read_manifest(tmp_path)
    assert found is not None
    assert [one.float16 for one in found.artifacts] == [None, None]


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def _changed(tmp_path: Path, *keys: str | int, value: Any) -> None:
    content = json.loads(_manifest().write(tmp_path).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("halo",), "21"),
        (("halo",), True),
        (("halo",), 2.5),
        (("surprise",), 1),
        (("training",), []),
        (("tools",), {"numpy": 2}),
        (("artifacts",), {}),
        (("artifacts",), "text"),
        (("artifacts", 0), ["file"]),
        (("artifacts", 0), None),
        (("artifacts", 0, "format"), "pth"),
        (("artifacts", 0, "rewrites"), "dense"),
        (("artifacts", 0, "operators"), ["Conv"]),
        (("artifacts", 0, "input", "shape"), [1, "3"]),
        (("artifacts", 1, "calibration"), "two.png"),
        (("artifacts", 1, "measured", "psnr"), True),
        (("artifacts", 1, "measured", "psnr"), "30"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: Any
) -> None:
    _changed(tmp_path, *keys, value=value)

    with pytest.raises(UserError, match=r"damaged .*export the bundle again") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["file", "tiled_by"])
@pytest.mark.parametrize("name", ["../a.onnx", "/etc/passwd", "b/a.onnx", "b\\\\a.onnx", ".."])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, key: str, name: str) -> None:
    _changed(tmp_path, "artifacts", 0, key, value=name)
    with pytest.raises(UserError, match="expected the name of a file beside it"):
        read_manifest(tmp_path)


def test_missing_values_are_refused(tmp_path: Path) -> None:
    content = json.loads(_manifest().write(tmp_path).read_text())
    del content["scale"]
    (tmp_path / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(UserError, match="damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"name": "a web page"}'])
def test_other_files_of_that_name_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)

    with pytest.raises(UserError, match="export the bundle again"):
        read_manifest(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    _changed(tmp_path, "schema", value=2)

    with pytest.raises(UserError, match="schema 2 found, 1 expected"):
        read_manifest(tmp_path)


def test_a_manifest_without_a_schema_is_of_the_first(tmp_path: Path) -> None:
    content = json.loads(_manifest().write(tmp_path).read_text())
    del content["schema"]
    (tmp_path / MANIFEST).write_text(json.dumps(content))

    assert read_manifest(tmp_path) == _manifest()


def test_verification(tmp_path: Path) -> None:
    path = tmp_path / "a_x4_int8.tflite"
    path.write_bytes(b"content")
    # sha256sum of "content"
    digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"

    verify(path, _manifest(digest).artifacts[1])
    with pytest.raises(
        UserError, match=r"^a_x4_int8\.tflite: SHA-256 differs .*; export it again$"
    ):
        verify(path, _manifest("00").artifacts[1])


def test_hash_and_size_of_a_folder(tmp_path: Path) -> None:
    package = tmp_path / "a.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "b").write_bytes(b"222")
    (package / "Data" / "a").write_bytes(b"1")

    assert sha256_of(package) == hashlib.sha256(b"Data/a\x001b\x00222").hexdigest()
    assert size_of(package) == 4
    assert size_of(package / "b") == 3
    before = sha256_of(package)
    (package / "b").rename(package / "c")
    assert sha256_of(package) != before
