"""A size that needs more memory than there is is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from export import memory
from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.memory import check_size, least_memory
from export.sources.source import Source
from export.variants import Variant
from runtime.errors import UserError
from training.catalogue import Model
from training.recipe_reading import load_recipe


class _Doubling(nn.Module):
    """Its largest activation has 12 channels at the input's size: 48 bytes a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        enlarged: torch.Tensor = nn.functional.pixel_shuffle(self.layer(image), 2)
        return enlarged


def test_the_largest_activation_counts_twice() -> None:
    assert least_memory(capture(_Doubling().eval()), (10, 20)) == 2 * 10 * 20 * 48


def test_a_size_is_held_against_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = capture(_Doubling().eval())
    monkeypatch.setattr(memory, "_memory", lambda: 2 * 10 * 20 * 48)

    check_size(graph, (10, 20))
    with pytest.raises(UserError, match="an input of 10x21 takes"):
        check_size(graph, (10, 21))


def test_an_impossible_size_leaves_no_files(tmp_path: Path) -> None:
    path, folder = tmp_path / "weights.safetensors", tmp_path / "dist"
    path.write_bytes(b"weights")
    module = _Doubling().eval()
    source = Source(Model("small", path, load_recipe("carn-m"), {}), 2, module, capture(module))
    variants = [Variant("onnx", "float32"), Variant("onnx", "float32", size=(100_000, 100_000))]

    with pytest.raises(UserError, match=r"100000x100000 takes 960\.0 GB of memory or more"):
        bundle_of(source, variants, folder)

    assert not folder.exists()
