"""A bundle keeps the files that are unchanged since their proof, and no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.bundle import bundle_of
from export.bundle_manifest import holds
from export.capture.torch_capture import capture
from export.sources.source import Source
from export.variants import Variant
from runtime.manifest import Artifact, Manifest, Measured, read_manifest
from training.catalogue import Model
from training.recipe_reading import load_recipe

ANY_SIZE, FIXED = Variant("onnx", "float32"), Variant("onnx", "float32", size=(8, 8))
FILE, OTHER = (one.file_name("small", 1) for one in (ANY_SIZE, FIXED))


class _Pooling(nn.Module):
    """A network that pools globally, so that its files bring companions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.layer(image)
        return features * torch.sigmoid(features.mean((2, 3), keepdim=True))


def _source(module: nn.Module, folder: Path) -> Source:
    path = folder / "weights.safetensors"
    path.write_bytes(b"weights")
    module = module.eval()
    return Source(Model("small", path, load_recipe("carn-m"), {}), 1, module, capture(module))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    torch.manual_seed(0)
    return _source(nn.Conv2d(3, 3, 3, padding=1), tmp_path_factory.mktemp("source"))


@pytest.fixture
def bundle(source: Source, tmp_path: Path) -> Path:
    bundle_of(source, [ANY_SIZE, FIXED], tmp_path)
    return tmp_path


def _exported_again(source: Source, folder: Path, *variants: Variant) -> list[list[str]]:
    lines: list[str] = []
    bundle_of(source, variants, folder, announce=lines.append)
    return [line.split() for line in lines]


def _rewrite(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    change(manifest).write(folder)


def _with_entry(file: str, change: Callable[[Artifact], Artifact]) -> Callable[[Path], None]:
    """Return a function that changes the entry of ``file`` in a manifest."""

    def replaced(manifest: Manifest) -> Manifest:
        entries = (change(one) if one.file == file else one for one in manifest.artifacts)
        return dataclasses.replace(manifest, artifacts=tuple(entries))

    return lambda folder: _rewrite(folder, replaced)


def _append_a_byte(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes() + b"\0")


SPOILED: dict[str, Callable[[Path], None]] = {
    "missing": lambda folder: (folder / FILE).unlink(),
    "changed": _append_a_byte,
    "of other scales": _with_entry(FILE, lambda one: dataclasses.replace(one, scales_sha256="ab")),
    "unproven": _with_entry(FILE, lambda one: dataclasses.replace(one, measured=Measured())),
}


def test_what_is_proven_is_kept(source: Source, bundle: Path) -> None:
    assert holds(bundle, FILE)
    assert _exported_again(source, bundle, ANY_SIZE, FIXED) == [["kept", FILE], ["kept", OTHER]]


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_is_not_what_was_proven_is_made_again(
    spoil: Callable[[Path], None], source: Source, bundle: Path
) -> None:
    before = (bundle / FILE).read_bytes()
    spoil(bundle)
    assert not holds(bundle, FILE)
    again = _exported_again(source, bundle, ANY_SIZE, FIXED)
    assert again == [["exported", FILE], ["kept", OTHER]]
    assert (bundle / FILE).read_bytes() == before
    assert holds(bundle, FILE)


def test_files_of_other_rewrites_are_made_again(source: Source, bundle: Path) -> None:
    _with_entry(FILE, lambda one: dataclasses.replace(one, rewrites=("another",)))(bundle)
    again = _exported_again(source, bundle, ANY_SIZE, FIXED)
    assert again == [["exported", FILE], ["kept", OTHER]]


def test_files_of_other_versions_of_the_tools_are_made_again_or_removed(
    source: Source, bundle: Path
) -> None:
    _rewrite(bundle, lambda m: dataclasses.replace(m, tools={**m.tools, "onnx": "0.1"}))
    assert not holds(bundle, FILE)
    again = _exported_again(source, bundle, ANY_SIZE)
    assert again == [["exported", FILE], ["removed", OTHER]]
    assert not (bundle / OTHER).exists()
    assert holds(bundle, FILE)


def test_a_file_is_not_held_without_the_one_that_restores_tiles_for_it(tmp_path: Path) -> None:
    source, folder = _source(_Pooling(), tmp_path), tmp_path / "bundle"
    bundle_of(source, [ANY_SIZE], folder)
    companion = ANY_SIZE.companion(source.graph)
    assert companion is not None
    assert holds(folder, FILE)
    (folder / companion.file_name("small", 1)).unlink()
    assert not holds(folder, FILE)
