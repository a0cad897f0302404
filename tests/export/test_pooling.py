"""A network that pools over the whole picture, exported whole, in tiles, folded and banked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import runtime
from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.errors import CannotLower
from export.execution import execute
from export.graph import Graph, Node
from export.lowering import int8_form, lower
from export.parity import Restore
from export.rewrites.corrections import with_corrected_biases
from export.rewrites.exact import fold_template_bank
from export.rewrites.pooling import cut_at_pooling
from export.scales import SIGMOID, ScaleTable
from export.sources.source import Source
from export.variants import DEFAULT_VARIANTS, Variant
from quantize.calibration import calibration_record
from quantize.ptq import quantize_network
from quantize.simulator import Simulator, int8_reference
from runtime.errors import UserError
from runtime.formats import Format
from runtime.manifest import Manifest, read_manifest
from runtime.tiling import restore_tiled
from training.catalogue import Model, find_model
from training.checkpoint import save_tensors
from training.networks.mepsnet import Mepsnet, MepsnetConfig
from training.recipe import Recipe

# The bank has more than 8,192 values: torch's exporter would fold a smaller one away.
CONFIG = MepsnetConfig(extraction=(8, 12), channels=8, experts=2, srirs=1, blocks=1, templates=16)


def _saved(folder: Path, gain: float = 8.0, bias: float = 0.0) -> Model:
    """Save an untrained MEPSNet whose gates differ from picture to picture."""
    torch.manual_seed(5)
    network = Mepsnet(CONFIG)
    with torch.no_grad():
        for convolution in (network.fusion.squeeze, network.fusion.excite):
            convolution.weight.mul_(gain)
        network.fusion.excite.bias.add_(bias)
        network.reconstruction[2].weight.mul_(0.3)
    recipe = Recipe.model_validate(
        {
            "version": 2,
            "name": "tiny-mepsnet",
            "network": dataclasses.asdict(CONFIG),
            "degradation": [{"kind": "shdd", "level": "easy"}],
            "stages": [{"steps": 1, "patch": 8, "batch": 1}],
            "optimizer": {"learning_rate": 1.0, "clip_norm": 1.0},
        }
    )
    path = folder / "tiny.safetensors"
    save_tensors(path, network.state_dict(), {"recipe": recipe.model_dump_json()})
    return find_model(str(path))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return _saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def source(model: Model) -> Source:
    return Source.of(model, 1)


@pytest.fixture(scope="module")
def table(source: Source) -> ScaleTable:
    return _table(source)


def _table(source: Source) -> ScaleTable:
    random = np.random.default_rng(0)
    crops = [random.integers(0, 256, (40, 40, 3), np.uint8) // one for one in (1, 2, 3)]
    return quantize_network(
        source.graph,
        crops,
        model=source.model.name,
        scale=1,
        weights_sha256=source.model.sha256,
        calibration=calibration_record([]),
    )


@pytest.fixture(scope="module")
def bundle(
    source: Source, table: ScaleTable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("bundle")
    variants = [
        *DEFAULT_VARIANTS,
        Variant("tflite", "float32", size=(24, 32)),
        Variant("onnx", "float32", profile="ort-cpu-banked"),
    ]
    return folder, bundle_of(source, variants, folder, table, int8_reference)


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """Dark on the left and bright on the right: tiles of it differ from the whole."""
    random = np.random.default_rng(2)
    ramp = np.linspace(0, 200, 90)[None, :, None]
    return (ramp + random.integers(0, 56, (60, 90, 3))).astype(np.uint8)


def test_the_captured_graph_holds_the_bank_and_computes_what_the_network_does(
    source: Source,
) -> None:
    graph, image = source.graph, torch.rand(1, 3, 17, 13)
    assert graph.operators()["MixTemplates"] == 4
    with torch.inference_mode():
        expected = source.module(image)
        torch.testing.assert_close(execute(graph, image), expected, atol=1e-5, rtol=0)
        folded = fold_template_bank(graph)
        assert "MixTemplates" not in folded.operators()
        torch.testing.assert_close(execute(folded, image), expected, atol=1e-5, rtol=0)
    assert folded.multadds(1280, 720) == graph.multadds(1280, 720)
    assert folded.halo() == graph.halo() == 8  # 2 + 1 + 2 + 1 + 2 convolutions of 3×3


def test_every_float_file_is_the_network_and_every_int8_file_its_simulation(
    bundle: tuple[Path, Manifest],
) -> None:
    _, manifest = bundle
    measured = {one.file: one.measured.max_abs_diff for one in manifest.artifacts}
    assert len(measured) == 12 + 11  # the two int8 TFLite files share their companion
    for file, difference in measured.items():
        if file.endswith(".mlpackage"):
            continue
        assert difference is not None, file
        if "float32" in file:
            assert difference <= 1e-5, file


def test_the_banked_file_is_the_folded_one_with_less_in_it(
    bundle: tuple[Path, Manifest], picture: NDArray[np.uint8]
) -> None:
    folder, manifest = bundle
    folded = manifest.artifact("tiny_mepsnet_x1_float32.onnx")
    banked = manifest.artifact("tiny_mepsnet_x1_float32_ort_cpu_banked.onnx")
    assert folded is not None
    assert banked is not None
    assert banked.operators["MatMul"] == 4
    assert "MatMul" not in folded.operators
    assert "fold_template_bank" in folded.rewrites
    image = picture.astype(np.float32) / 255
    with runtime.open(folder / folded.file) as one, runtime.open(folder / banked.file) as other:
        np.testing.assert_allclose(one.run(image), other.run(image), atol=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("tile", [8, 23, 40])
@pytest.mark.parametrize(
    ("precision", "allowed"), [("float32", 1e-5), ("float16", 2e-3), ("int8", 2.01 / 255)]
)
def test_tiles_restore_what_the_whole_picture_does(
    bundle: tuple[Path, Manifest],
    picture: NDArray[np.uint8],
    kind: str,
    tile: int,
    precision: str,
    allowed: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = picture.astype(np.float32) / 255
    with runtime.open(bundle[0] / f"tiny_mepsnet_x1_{precision}.{kind}") as session:
        whole = np.clip(session.run(image), 0, 1)
        tiled = restore_tiled(session, image, tile)
        assert np.abs(tiled - whole).max() <= allowed
        # Without the second pass each tile is restored with its own average, which is wrong.
        monkeypatch.setattr(session, "open_tiled", None)
        assert np.abs(restore_tiled(session, image, tile) - whole).max() > 2 * allowed


def test_the_self_ensemble_of_tiles_is_that_of_the_whole_picture(
    bundle: tuple[Path, Manifest], picture: NDArray[np.uint8]
) -> None:
    with runtime.open(bundle[0] / "tiny_mepsnet_x1_float32.tflite") as session:
        image = picture.astype(np.float32) / 255
        whole = restore_tiled(session, image, ensemble=True)
        tiled = restore_tiled(session, image, 20, ensemble=True)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_a_file_of_fixed_size_restores_larger_and_smaller_pictures(
    bundle: tuple[Path, Manifest], picture: NDArray[np.uint8]
) -> None:
    folder, _ = bundle
    fixed = runtime.open(folder / "tiny_mepsnet_x1_float32_24x32.tflite")
    free = runtime.open(folder / "tiny_mepsnet_x1_float32.tflite")
    with fixed, free:
        np.testing.assert_array_equal(restore_tiled(fixed, picture), restore_tiled(free, picture))
        small = picture[:20, :30]
        halo = 8
        inner = np.s_[: 20 - halo, : 30 - halo]
        restored = restore_tiled(fixed, small)
        # Near the continued edges the network sees the reflection and not the padding; the
        # average, which all pixels depend on, is that of the picture alone up to those.
        difference = np.abs(restored.astype(int) - restore_tiled(free, small))[inner]
        assert difference.max() <= 12


@pytest.mark.parametrize(
    ("precision", "allowed"), [("float32", 1e-5), ("float16", 2e-3), ("int8", 3.01 / 255)]
)
def test_core_ml_packages_whole_and_cut_compute_what_the_network_does(
    bundle: tuple[Path, Manifest],
    source: Source,
    table: ScaleTable,
    picture: NDArray[np.uint8],
    open_package: Callable[[Path], Any],
    precision: str,
    allowed: float,
) -> None:
    image = (picture.astype(np.float32) / 255).transpose(2, 0, 1)[None].copy()
    int8 = with_corrected_biases(int8_form(source.graph, table), table)
    module = Simulator(int8, table) if precision == "int8" else source.module
    with torch.inference_mode():
        expected = module(torch.from_numpy(image)).clamp(0, 1).numpy()
    folder, stem = bundle[0], f"tiny_mepsnet_x1_{precision}"
    whole = open_package(folder / f"{stem}.mlpackage")(image)
    assert np.abs(whole.clip(0, 1) - expected).max() <= allowed
    cut = open_package(folder / f"{stem}_tiled.mlpackage")
    described = bundle[1].artifact(f"{stem}_tiled.mlpackage")
    assert described is not None and described.pooling is not None
    pooled = described.pooling.pooled.channels
    _, features = cut(image, np.zeros((1, pooled, 1, 1), np.float32))
    restored, _ = cut(image, features.mean((2, 3), keepdims=True))
    assert np.abs(restored.clip(0, 1) - expected).max() <= allowed


def test_openvino_restores_tiles_too(
    bundle: tuple[Path, Manifest], picture: NDArray[np.uint8]
) -> None:
    pytest.importorskip("openvino")
    path = bundle[0] / "tiny_mepsnet_x1_float32.onnx"
    with runtime.open(path, runtime="openvino") as one, runtime.open(path) as other:
        restored = restore_tiled(one, picture, 20).astype(int)
        assert np.abs(restored - restore_tiled(other, picture)).max() <= 1


def test_the_manifest_says_how_tiles_are_restored(bundle: tuple[Path, Manifest]) -> None:
    _, manifest = bundle
    main = manifest.artifact("tiny_mepsnet_x1_int8_float_io.tflite")
    assert main is not None
    assert main.tiled_by == "tiny_mepsnet_x1_int8_tiled.tflite"
    companion = manifest.artifact(main.tiled_by)
    assert companion is not None
    assert companion.pooling is not None
    assert companion.tiled_by is None
    # Two experts of eight channels, squeezed to half of them before they are pooled.
    assert companion.pooling.features.shape == (1, None, None, 8)
    assert companion.pooling.pooled.shape == (1, 1, 1, 8)
    assert companion.pooling.pooled.scale is not None
    assert "cut_at_pooling" in companion.rewrites


@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(1, 30))
@settings(max_examples=15)
def test_any_tiles_of_any_picture_are_right(
    bundle: tuple[Path, Manifest], height: int, width: int, tile: int
) -> None:
    image = np.random.default_rng(height * width).random((height, width, 3), np.float32)
    with runtime.open(bundle[0] / "tiny_mepsnet_x1_float32.onnx") as session:
        tiled = restore_tiled(session, image, tile)
        np.testing.assert_allclose(tiled, np.clip(session.run(image), 0, 1), atol=1e-5)


def test_the_gate_is_what_tflite_returns_without_requantizing_it(
    bundle: tuple[Path, Manifest], table: ScaleTable
) -> None:
    assert table.of("sigmoid") == SIGMOID
    file = bundle[1].artifact("tiny_mepsnet_x1_int8.tflite")
    assert file is not None
    assert file.operators["LOGISTIC"] == 1
    assert "QUANTIZE" not in file.operators


def test_a_gate_that_stays_low_has_a_scale_of_its_own(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    source = Source.of(_saved(tmp_path, gain=1.0, bias=-6.0), 1)
    table, references = _table(source), list[Restore]()

    def recorded(*of: Any) -> Restore:
        references.append(int8_reference(*of))
        return references[-1]

    assert table.of("sigmoid").scale <= SIGMOID.scale / 8
    kinds: dict[Format, str] = {"tflite": "GATHER", "onnx": "Sigmoid"}
    for kind, operator in kinds.items():
        variant = Variant(kind, "int8")
        manifest = bundle_of(source, [variant], tmp_path / kind, table, recorded)
        file = manifest.artifact(variant.file_name("tiny-mepsnet", 1))
        assert file is not None
        assert file.operators[operator] == 1 and "LOGISTIC" not in file.operators
        image = picture.astype(np.float32) / 255
        with runtime.open(tmp_path / kind / file.file) as session:
            restored = session.run(image)
        expected = np.clip(references[-1](image), 0, 1)
        np.testing.assert_array_equal(np.rint(255 * restored), np.rint(255 * expected))


def test_files_of_a_size_that_the_halo_fills_bring_no_companion(
    source: Source, tmp_path: Path
) -> None:
    manifest = bundle_of(source, [Variant("onnx", "float32", size=(16, 40))], tmp_path)
    (file,) = manifest.artifacts
    assert file.tiled_by is None
    with (
        runtime.open(tmp_path / file.file) as session,
        pytest.raises(UserError, match=r"fixed at 16×40, which its halo of 8 pixels fills"),
    ):
        restore_tiled(session, np.zeros((50, 40, 3), np.uint8))


def test_a_graph_without_a_pooling_or_with_two_is_not_cut(source: Source) -> None:
    cut = cut_at_pooling(source.graph)
    with pytest.raises(CannotLower, match="0 global poolings"):
        cut_at_pooling(cut)

    class Twice(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            once = image * image.mean((2, 3), keepdim=True)
            return once * torch.relu(once).mean((2, 3), keepdim=True)

    with pytest.raises(CannotLower, match="2 global poolings"):
        cut_at_pooling(capture(Twice()))


def test_a_graph_that_pools_what_is_larger_than_the_picture_is_not_cut() -> None:
    nodes = (
        Node("Conv", "up", ("image", "weight", "bias"), ("wide",), {"groups": 1}),
        Node("DepthToSpace", "up", ("wide",), ("large",), {"block": 2, "mode": "CRD"}),
        Node("GlobalAveragePool", "pool", ("large",), ("mean",)),
        Node("Mul", "gate", ("large", "mean"), ("restored_image",)),
    )
    constants = {
        "weight": np.ones((12, 3, 1, 1), np.float32),
        "bias": np.zeros(12, np.float32),
    }
    with pytest.raises(CannotLower, match="pool: pools features of another size"):
        cut_at_pooling(Graph(nodes, constants))


def test_files_of_other_scales_or_other_rewrites_are_made_again(
    source: Source, table: ScaleTable, tmp_path: Path
) -> None:
    def announced(of: ScaleTable) -> list[str]:
        lines: list[str] = []
        variants = [Variant("tflite", "int8", tiled=True)]
        bundle_of(source, variants, tmp_path, of, announce=lines.append)
        return [line.split()[0] for line in lines]

    assert announced(table) == ["exported"]
    assert announced(table) == ["kept"]
    other = dataclasses.replace(table, method="another")
    assert announced(other) == ["exported"]
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    changed = tuple(dataclasses.replace(one, rewrites=()) for one in manifest.artifacts)
    dataclasses.replace(manifest, artifacts=changed).write(tmp_path)
    assert announced(other) == ["exported"]


def test_other_formats_refuse_a_bank_with_the_remedy(source: Source, tmp_path: Path) -> None:
    from export.writers.coreml_writer import write_coreml
    from export.writers.tflite_writer import write_tflite

    banked: Graph = lower(source.graph, ("fold_output_shift",))
    with pytest.raises(CannotLower, match="fold_template_bank"):
        write_tflite(banked, tmp_path / "a.tflite", "float32")
    with pytest.raises(CannotLower, match="fold_template_bank"):
        write_coreml(banked, tmp_path / "a.mlpackage", "float32")
