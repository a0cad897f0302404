"""Files compiled for Qualcomm's SoCs, of a tiny network; some tests need the extra 'qnn'."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from export import compiled
from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.compiled import check_compilers, compile_bundle
from export.sources.source import Source
from export.variants import Variant
from runtime.errors import UserError
from runtime.manifest import read_manifest, sha256_of
from runtime.qualcomm_htp import missing_qnn
from runtime.snapdragon import SNAPDRAGONS
from training.catalogue import Model
from training.recipe_reading import load_recipe

needs_qnn = pytest.mark.skipif(missing_qnn() is not None, reason=str(missing_qnn()))
SM8650, SM8350 = SNAPDRAGONS["sm8650"], SNAPDRAGONS["sm8350"]
FIXED = Variant("onnx", "float16", size=(16, 24))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    path.write_bytes(b"weights")
    return Source(Model("small", path, load_recipe("carn-m"), {}), 1, module, capture(module))


@needs_qnn
def test_a_compiled_file_is_in_the_manifest_and_kept(source: Source, tmp_path: Path) -> None:
    bundle = bundle_of(source, [FIXED], tmp_path)
    said: list[str] = []
    made = compile_bundle(bundle, tmp_path, [SM8650, SM8350], said.append)
    assert said == ["compiled  small_x1_float16_16x24_sm8650.onnx"]  # v68 takes no floats
    (entry,) = made.compiled
    path = tmp_path / entry.file
    assert entry.target == "sm8650"
    assert entry.source == "small_x1_float16_16x24.onnx"
    assert entry.sha256 == sha256_of(path)
    assert entry.bytes == path.stat().st_size
    assert 50 < entry.decibels < 120  # half arithmetic
    assert [node.op_type for node in onnx.load(path).graph.node] == ["EPContext"]
    assert read_manifest(tmp_path) == made
    compile_bundle(made, tmp_path, [SM8650], said.append)
    assert said[-1] == "kept      small_x1_float16_16x24_sm8650.onnx"
    path.write_bytes(b"damaged")
    compile_bundle(made, tmp_path, [SM8650], said.append)
    assert said[-1] == "compiled  small_x1_float16_16x24_sm8650.onnx"


@needs_qnn
def test_a_chip_that_computes_something_else_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(source, [FIXED], tmp_path)
    monkeypatch.setattr(compiled, "_distance", lambda *arguments: 12.0)
    with pytest.raises(UserError, match=r"on sm8650 its output is 12\.0 dB from this machine's"):
        compile_bundle(bundle, tmp_path, [SM8650])
    assert not list(tmp_path.glob("*sm8650*"))


def test_a_bundle_without_fixed_sizes_is_told(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "missing_qnn", lambda: None)
    bundle = bundle_of(source, [Variant("onnx", "float16")], tmp_path)
    with pytest.raises(UserError, match="fixed size in int8 or float16; add --size"):
        compile_bundle(bundle, tmp_path, [SM8650])


def test_a_missing_compiler_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "missing_qnn", lambda: "needs a: pip install a")
    with pytest.raises(UserError, match="compiling for sm8650 needs a: pip install a"):
        check_compilers([SM8650])
    check_compilers([])


def test_files_of_other_weights_are_removed_with_what_was_compiled_of_them(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, precision: str, soc: object, entries: dict[str, str] | None = None):
        if entries is not None:
            Path(entries["ep.context_file_path"]).write_bytes(b"compiled")

    monkeypatch.setattr(compiled, "missing_qnn", lambda: None)
    monkeypatch.setattr(compiled, "_compiler", lambda: "a compiler 1")
    monkeypatch.setattr(compiled, "open_on_htp", write)
    monkeypatch.setattr(compiled, "_distance", lambda *arguments: 60.0)
    bundle = bundle_of(source, [FIXED], tmp_path)
    (entry,) = compile_bundle(bundle, tmp_path, [SM8650]).compiled
    assert (tmp_path / entry.file).read_bytes() == b"compiled"
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"other weights")
    other = Source(Model("small", path, load_recipe("carn-m"), {}), 1, source.module, source.graph)
    again = bundle_of(other, [FIXED], tmp_path, overwrite=True)
    assert again.compiled == ()
    assert not (tmp_path / entry.file).exists()
