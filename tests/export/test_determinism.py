"""Equal networks give equal files, in another process with another order of hashes, too.

This file is also the script of that process: it prints the SHA-256 of everything it writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.artifacts import write_artifact
from export.capture.torch_capture import capture
from export.lowered import lower_for
from export.sources.source import Source
from export.variants import DEFAULT_VARIANTS
from quantize.ptq import quantize_network
from runtime.manifest import Calibration
from training.catalogue import Model
from training.recipe_reading import load_recipe

ROOT = Path(__file__).parents[2]


def test_another_order_of_hashes_changes_no_file(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    child = subprocess.run(
        [sys.executable, __file__, str(there)], env=environment, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == write_everything(here)


class _Network(nn.Module):
    """A ×2 network of a few channels with every case that rewrites and writers distinguish."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.fusion = nn.Conv2d(16, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.exit = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        first = torch.relu(self.entry(image))
        second = torch.relu(self.grouped(first) + first)
        fused = self.fusion(torch.cat([first, second], 1))
        weighed = fused * torch.sigmoid(self.gate(fused.mean((2, 3), keepdim=True)))
        return nn.functional.pixel_shuffle(self.exit(weighed), 2)


def write_everything(folder: Path) -> dict[str, str]:
    """Write the usual files of a small network into a new folder.

    Returns:
        SHA-256 of the table of scales and of every file, by name.
    """
    folder.mkdir()
    path = folder / "weights.safetensors"
    path.write_bytes(b"weights")
    torch.manual_seed(0)
    module, model = _Network().eval(), Model("small", path, load_recipe("carn-m"), {})
    source = Source(model, 2, module, capture(module))
    crop = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    table = quantize_network(
        source.graph,
        [crop],
        model=model.name,
        scale=source.scale,
        weights_sha256=model.sha256,
        calibration=Calibration((), ""),
    )
    written = {"scales": table.sha256}
    tiled = [one.companion(source.graph) for one in DEFAULT_VARIANTS]
    for variant in dict.fromkeys([*DEFAULT_VARIANTS, *filter(None, tiled)]):
        lowered = lower_for(source, variant, table)
        artifact = write_artifact(source, variant, lowered, folder, table)
        written[artifact.file] = artifact.sha256
    return written


if __name__ == "__main__":
    print(json.dumps(write_everything(Path(sys.argv[1]))))
