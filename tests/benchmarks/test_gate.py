"""The gate must fail for every figure, in both directions, and for damage no score would show."""

from __future__ import annotations

import builtins
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import snapshots
from benchmarks.accuracy import network_restorer, score
from benchmarks.gate import Verdict, compare, damaged
from benchmarks.pairs import Pair
from benchmarks.report.gate_summary import as_text
from benchmarks.snapshots import (
    NETWORK,
    UPDATE_COMMAND,
    Entry,
    Quality,
    Reference,
    Snapshot,
    float32_reference,
    gate_pictures,
    read_snapshot,
    snapshot,
)
from export.colours import flat
from export.parity import restore_with
from runtime.errors import UserError
from runtime.manifest import Artifact, Manifest, read_manifest
from training.degradations import bicubic
from training.tasks import SUPER_RESOLUTION


@pytest.fixture(scope="module")
def bundle(
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Files of the tiny network, one of them a pretended Core ML package."""
    folder = tmp_path_factory.mktemp("bundle")
    artifacts = [
        write_artifact(folder, format_, precision)
        for format_ in ("onnx", "tflite")
        for precision in ("float32", "int8")
    ]
    package = folder / "tiny_x2_float32.mlpackage"
    package.mkdir()
    (package / "weights").write_bytes(b"w" * 1000)
    artifacts.append(
        dataclasses.replace(artifacts[0], file=package.name, format="coreml", sha256="?")
    )
    manifest_of(*artifacts).write(folder)
    return folder


@pytest.fixture(scope="module")
def found(bundle: Path, tiny: Any, pairs: list[Pair]) -> Snapshot:
    """The bundle's figures."""
    return snapshot(bundle, Reference(NETWORK, restore_with(tiny.module)), pairs, threads=1)


def _changed(found: Snapshot, file: str, **changes: Any) -> Snapshot:
    """Change an entry, or its quality, of a snapshot."""
    entries = []
    for entry in found.artifacts:
        if entry.file == file and set(changes) <= {one.name for one in dataclasses.fields(Quality)}:
            assert entry.quality is not None
            entry = dataclasses.replace(
                entry, quality=dataclasses.replace(entry.quality, **changes)
            )
        elif entry.file == file:
            entry = dataclasses.replace(entry, **changes)
        entries.append(entry)
    return dataclasses.replace(found, artifacts=tuple(entries))


def _entry(found: Snapshot, file: str) -> Entry:
    (entry,) = [entry for entry in found.artifacts if entry.file == file]
    return entry


def _quality(found: Snapshot, file: str) -> Quality:
    quality = _entry(found, file).quality
    assert quality is not None
    return quality


def test_bundle_is_measured(found: Snapshot, bundle: Path, tiny: Any) -> None:
    entry = _entry(found, "tiny_x2_int8.tflite")
    quality = _quality(found, "tiny_x2_int8.tflite")

    assert entry.bytes == (bundle / entry.file).stat().st_size
    assert entry.multadds == tiny.graph.multadds(1280, 720)
    assert entry.operators["CONV_2D"] >= 10
    assert quality.max_abs_diff > 1e-3  # It is quantized …
    assert _quality(found, "tiny_x2_float32.tflite").max_abs_diff < 1e-5  # … and this is not.
    # Integer outputs are whole quanta.
    assert np.allclose(quality.samples, np.round(quality.samples), atol=2e-3)


@pytest.mark.skipif("sys.platform == 'darwin'", reason="there it can run")
def test_core_ml_has_sizes_but_no_accuracy(found: Snapshot) -> None:
    entry = _entry(found, "tiny_x2_float32.mlpackage")

    assert entry.quality is None
    assert entry.bytes == 1000
    assert entry.operators


def test_equal_figures_pass_and_survive_the_file(found: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"

    found.write(path)

    assert read_snapshot(path) == found
    assert compare(found, read_snapshot(path)) == []
    # Lists of numbers do not stretch over a thousand lines.
    assert len(path.read_text().splitlines()) < 200


@pytest.mark.parametrize(
    ("file", "quantity", "step", "name", "tolerance"),
    [
        ("tiny_x2_float32.onnx", "psnr", 0.02, "PSNR dB", "±0.02"),
        ("tiny_x2_float32.onnx", "ssim", 0.0005, "SSIM", "±0.0005"),
        ("tiny_x2_float32.onnx", "max_abs_diff", 1e-5, "difference from source", "±1e-05"),
        ("tiny_x2_int8.tflite", "max_abs_diff", 2 / 255, "difference from source", "±0.00788"),
        ("tiny_x2_int8.tflite", "colours", 1.0, "difference in saturated colours", "±1.01"),
    ],
)
@pytest.mark.parametrize("direction", [1, -1], ids=["better or larger", "worse or smaller"])
def test_each_figure_has_its_tolerance(
    file: str,
    quantity: str,
    step: float,
    name: str,
    tolerance: str,
    direction: int,
    found: Snapshot,
) -> None:
    value = getattr(_quality(found, file), quantity)

    within = _changed(found, file, **{quantity: value + direction * 0.9 * step})
    beyond = _changed(found, file, **{quantity: value + direction * 1.1 * step})

    assert compare(within, found) == []
    (deviation,) = compare(beyond, found)
    assert (deviation.artifact, deviation.quantity) == (file, name)
    assert deviation.tolerance == tolerance


@pytest.mark.parametrize(
    ("expected", "now", "passes"),
    [
        (40.0, 40.09, True),
        (40.0, 40.11, False),
        (40.0, 39.89, False),
        (40.0, None, False),
        (100.0, 100.0, True),
    ],
)
def test_clean_pictures_are_held_to_a_tenth_of_a_decibel(
    expected: float, now: float | None, passes: bool, found: Snapshot
) -> None:
    file = "tiny_x2_int8.tflite"
    deviations = compare(_changed(found, file, clean=now), _changed(found, file, clean=expected))
    named = [(file, "PSNR dB of clean pictures")]
    assert [(one.artifact, one.quantity) for one in deviations] == ([] if passes else named)


def test_networks_that_enlarge_have_no_figure_of_clean_pictures(found: Snapshot) -> None:
    assert _quality(found, "tiny_x2_int8.tflite").clean is None


@pytest.mark.parametrize(("factor", "passes"), [(1.009, True), (1.011, False), (0.989, False)])
def test_size_is_held_to_one_percent(factor: float, passes: bool, found: Snapshot) -> None:
    file = "tiny_x2_float32.onnx"
    baseline = _changed(found, file, bytes=100_000)

    deviations = compare(_changed(found, file, bytes=round(100_000 * factor)), baseline)

    assert [one.quantity for one in deviations] == ([] if passes else ["bytes"])


def test_multadds_and_operators_are_exact(found: Snapshot) -> None:
    file = "tiny_x2_float32.tflite"
    entry = _entry(found, file)
    operators = {**entry.operators, "TRANSPOSE": 1, "ADD": entry.operators["ADD"] + 1}

    deviations = compare(
        _changed(found, file, multadds=entry.multadds + 1, operators=operators), found
    )

    assert {(one.quantity, one.expected, one.found) for one in deviations} == {
        ("MultAdds", str(entry.multadds), str(entry.multadds + 1)),
        ("operator ADD", str(entry.operators["ADD"]), str(entry.operators["ADD"] + 1)),
        ("operator TRANSPOSE", "0", "1"),
    }
    assert {one.tolerance for one in deviations} == {"exact"}


def test_figure_that_is_no_number_fails(found: Snapshot) -> None:
    (deviation,) = compare(_changed(found, "tiny_x2_int8.onnx", psnr=float("nan")), found)

    assert deviation.found == "nan"


def test_a_quality_that_one_side_lacks_fails(found: Snapshot) -> None:
    file = "tiny_x2_int8.tflite"
    lacking = tuple(
        dataclasses.replace(one, quality=None) if one.file == file else one
        for one in found.artifacts
    )
    for one, other in ((found, lacking), (dataclasses.replace(found, artifacts=lacking), None)):
        baseline = found if other is None else dataclasses.replace(found, artifacts=other)
        (deviation,) = compare(one, baseline)
        assert (deviation.artifact, deviation.quantity) == (file, "quality")


def test_a_core_ml_quality_that_one_side_lacks_passes_for_only_macos_measures_it(
    found: Snapshot,
) -> None:
    quality = _quality(found, "tiny_x2_float32.onnx")
    on_a_mac = _changed(found, "tiny_x2_float32.mlpackage", quality=quality)
    assert compare(on_a_mac, found) == compare(found, on_a_mac) == []


def test_files_that_are_not_those_of_the_manifest_are_named(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    package = "tiny_x2_float32.mlpackage"  # its hash is pretended, too
    assert [one.artifact for one in damaged(copy)] == [package]
    file = copy / "tiny_x2_int8.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    (copy / "tiny_x2_float32.onnx").unlink()
    assert [one.artifact for one in damaged(copy)] == [file.name, package]


def test_missing_and_additional_artifacts_fail(found: Snapshot) -> None:
    first, *others = found.artifacts
    fewer = dataclasses.replace(found, artifacts=tuple(others))

    (missing,) = compare(fewer, found)
    (additional,) = compare(found, fewer)

    assert (missing.artifact, missing.found) == (first.file, "missing")
    assert (additional.artifact, additional.found) == (first.file, "additional")


def test_other_weights_fail_by_name(found: Snapshot) -> None:
    (deviation,) = compare(dataclasses.replace(found, weights_sha256="f" * 64), found)

    assert (deviation.artifact, deviation.quantity) == ("tiny", "weights SHA-256")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "carn"}, "baseline is of model tiny, found carn"),
        ({"scale": 3}, "baseline is of scale 2, found 3"),
        (
            {"pictures": ("face", "other")},
            "other than the 2 found: lacking are flag and additional are other",
        ),
        ({"pictures": ("flag", "face")}, "other than the 2 found: their order differs"),
        ({"pictures_sha256": "f" * 64}, "pictures of the same names that show something else"),
        (
            {"compared_with": "tiny_x2_float32.onnx"},
            "differences from the network, found tiny_x2_float32.onnx",
        ),
    ],
)
def test_unlike_snapshots_are_not_compared(
    change: dict[str, Any], message: str, found: Snapshot
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compare(dataclasses.replace(found, **change), found)
    assert "adding --update to this command" in str(caught.value)


def test_a_damaged_file_is_not_opened_and_has_no_quality(
    bundle: Path, found: Snapshot, tiny: Any, pairs: list[Pair], tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    (copy / "tiny_x2_int8.tflite").write_bytes(b"what might abort the process inside LiteRT")

    again = snapshot(copy, Reference(NETWORK, restore_with(tiny.module)), pairs, threads=1)

    assert _entry(again, "tiny_x2_int8.tflite").quality is None
    deviating = compare(again, found)
    assert {one.artifact for one in deviating} == {"tiny_x2_int8.tflite"}
    assert {one.quantity for one in deviating} == {"bytes", "quality"}


def test_without_weights_files_are_compared_with_a_float32_file(
    bundle: Path, found: Snapshot, pairs: list[Pair], manifest_of: Callable[..., Manifest]
) -> None:
    manifest = read_manifest(bundle)
    assert manifest is not None
    with float32_reference(bundle, manifest) as reference:
        again = snapshot(bundle, reference, pairs, threads=1)

    assert again.compared_with == "tiny_x2_float32.onnx"
    assert _quality(again, "tiny_x2_float32.onnx").max_abs_diff == 0
    difference = _quality(again, "tiny_x2_int8.tflite").max_abs_diff
    by_network = _quality(found, "tiny_x2_int8.tflite").max_abs_diff
    assert difference == pytest.approx(by_network, abs=1e-5)

    int8 = [one for one in manifest.artifacts if one.precision == "int8"]
    with (
        pytest.raises(UserError, match=r"holds no float32 file .* with --weights"),
        float32_reference(bundle, manifest_of(*int8)),
    ):
        pass


def test_large_pictures_are_compared_in_part_and_scored_whole(
    bundle: Path, tiny: Any, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_WHOLE", 16)
    monkeypatch.setattr(snapshots, "colour_pictures", lambda size: [flat((255, 0, 0), 16)])
    network, shapes = restore_with(tiny.module), []

    def restore(picture: np.ndarray) -> np.ndarray:
        shapes.append(picture.shape)
        return network(picture)

    again = snapshot(bundle, Reference(NETWORK, restore), pairs, threads=1)

    assert set(shapes) == {(16, 16, 3)}
    assert _quality(again, "tiny_x2_float32.onnx").psnr == pytest.approx(
        score(network_restorer(tiny.module), pairs).psnr, abs=1e-3
    )


def _files_that_deviate(
    folder: Path,
    artifacts: list[Artifact],
    tiny: Any,
    pairs: list[Pair],
    baseline: Snapshot,
    manifest_of: Callable[..., Manifest],
) -> set[str]:
    manifest_of(*artifacts).write(folder)
    files = {artifact.file for artifact in artifacts}
    kept = tuple(entry for entry in baseline.artifacts if entry.file in files)
    found = snapshot(folder, Reference(NETWORK, restore_with(tiny.module)), pairs, threads=1)
    deviations = compare(found, dataclasses.replace(baseline, artifacts=kept))
    return {deviation.artifact for deviation in deviations}


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("layer", ["entry", "upsampler.0", "exit"])
def test_one_weight_tensor_one_percent_off_fails(
    precision: str,
    layer: str,
    tiny: Any,
    found: Snapshot,
    pairs: list[Pair],
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    tmp_path: Path,
) -> None:
    name = f"{layer}.weight"
    constants = {**tiny.graph.constants, name: tiny.graph.constants[name] * np.float32(1.01)}
    graph = dataclasses.replace(tiny.graph, constants=constants)
    artifacts = [
        write_artifact(tmp_path, kind, precision, graph=graph) for kind in ("onnx", "tflite")
    ]

    deviating = _files_that_deviate(tmp_path, artifacts, tiny, pairs, found, manifest_of)

    assert deviating == {artifact.file for artifact in artifacts}


def test_one_scale_five_percent_off_fails(
    tiny: Any,
    found: Snapshot,
    pairs: list[Pair],
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    tmp_path: Path,
) -> None:
    concat = next(node.output for node in tiny.graph.nodes if node.op == "Concat")
    scales = dict(tiny.table.activations)
    scales[concat] = dataclasses.replace(scales[concat], scale=scales[concat].scale * 1.05)
    table = dataclasses.replace(tiny.table, activations=scales)
    artifacts = [
        write_artifact(tmp_path, "tflite", "int8", table=table),
        write_artifact(tmp_path, "tflite", "float32", table=table),
    ]

    deviating = _files_that_deviate(tmp_path, artifacts, tiny, pairs, found, manifest_of)

    assert deviating == {"tiny_x2_int8.tflite"}


def test_a_range_that_clips_saturated_colours_alone_fails(
    tiny: Any,
    found: Snapshot,
    pairs: list[Pair],
    write_artifact: Callable[..., Artifact],
    manifest_of: Callable[..., Manifest],
    tmp_path: Path,
) -> None:
    shuffle = next(node for node in tiny.graph.nodes if node.op == "DepthToSpace")
    scales = dict(tiny.table.activations)
    for name in (shuffle.inputs[0], shuffle.output):
        scales[name] = dataclasses.replace(scales[name], scale=scales[name].scale * 0.7)
    table = dataclasses.replace(tiny.table, activations=scales)
    artifact = write_artifact(tmp_path, "tflite", "int8", table=table)
    manifest_of(artifact).write(tmp_path)
    narrowed = snapshot(tmp_path, Reference(NETWORK, restore_with(tiny.module)), pairs, threads=1)
    kept = tuple(entry for entry in found.artifacts if entry.file == artifact.file)

    deviations = compare(narrowed, dataclasses.replace(found, artifacts=kept))

    (colours,) = [one for one in deviations if one.quantity == "difference in saturated colours"]
    assert float(colours.found) > float(colours.expected) + 1


def test_table_shows_everything_and_the_way_out(found: Snapshot) -> None:
    file = "tiny_x2_int8.onnx"
    deviations = compare(_changed(found, file, psnr=12.3456), found)

    accept = f"{UPDATE_COMMAND} --bundle dist"
    table = as_text(Verdict(found, tuple(deviations), accept))

    header, _, row, advice = table.splitlines()
    assert header.split() == ["artifact", "quantity", "expected", "found", "tolerance"]
    expected = f"{_quality(found, file).psnr:.3f}"
    assert row.split() == [file, "PSNR", "dB", expected, "12.346", "±0.02"]
    assert advice.endswith(f": {accept}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no baseline; make one by"),
        ("{", "damaged"),
        ('{"model": "x"}', "schema 1 found, 2 expected"),
        ('{"schema": 2, "model": "x"}', "damaged"),
    ],
)
def test_unreadable_baseline(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(UserError, match=message) as caught:
        read_snapshot(path)
    assert "adding --update to this command" in str(caught.value)


def test_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        snapshot(tmp_path, Reference(NETWORK, lambda picture: picture), [])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pictures_are_real_and_large_enough(scale: int) -> None:
    pairs = gate_pictures(SUPER_RESOLUTION, scale)

    scores = score(lambda picture: bicubic.enlarge(picture, scale), pairs)

    assert len({pair.name for pair in pairs}) == 4
    assert all(pair.high.shape == (192, 192, 3) for pair in pairs)
    assert scores.ssim is not None
    assert 20 < scores.psnr < 40


def test_missing_pictures_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_skimage(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "skimage":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_skimage)

    with pytest.raises(UserError, match=r"pip install 'reslite\[demo\]'"):
        gate_pictures(SUPER_RESOLUTION, 4)


def test_written_baseline_is_plain_json(found: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    found.write(path)

    content = json.loads(path.read_text())

    assert content["artifacts"][0]["file"] == found.artifacts[0].file
    assert content["pictures"] == list(found.pictures)
