"""Networks of others with functions, normalizations and work on some channels, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from export.bundle import bundle_of
from export.sources.checkpoint import import_spandrel, read_checkpoint
from export.sources.source import Source
from export.sources.tensors import read_tensors
from export.variants import Variant
from quantize.calibration import calibration_record
from quantize.ptq import quantize_network
from quantize.simulator import int8_reference
from quantize.tuning import Limit

if find_spec("spandrel") is None:
    pytest.skip("needs the spandrel extra", allow_module_level=True)
import_spandrel()


def _plksr() -> nn.Module:
    from spandrel.architectures.PLKSR.__arch.PLKSR import PLKSR

    return PLKSR(dim=8, n_blocks=1, upscaling_factor=2)


def _real_plksr() -> nn.Module:
    from spandrel.architectures.PLKSR.__arch.RealPLKSR import RealPLKSR

    return RealPLKSR(dim=16, n_blocks=1, upscaling_factor=2, kernel_size=7)


def _mosr() -> nn.Module:
    from spandrel.architectures.MoSR.__arch.mosr_arch import MoSR

    return MoSR(upscale=2, n_block=1, dim=16, upsampler="ps")


def _rcan() -> nn.Module:
    from spandrel.architectures.RCAN.__arch.rcan_arch import RCAN

    return RCAN(scale=2, n_resgroups=1, n_resblocks=2, n_feats=16, reduction=4)


# Each with operators that it must be read as.
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Mapping[str, int]]] = {
    "PLKSR": (_plksr, {"Gelu": 1, "Split": 1, "Concat": 1}),
    "RealPLKSR": (_real_plksr, {"GroupNorm": 1, "Mish": 1, "Split": 1, "Concat": 1}),
    "MoSR": (_mosr, {"ChannelNorm": 1, "Sub": 2}),
    "RCAN": (_rcan, {"GlobalAveragePool": 2, "Sigmoid": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_files_of_a_checkpoint_are_proven(name: str, tmp_path: Path) -> None:
    build, operators = NETWORKS[name]
    torch.manual_seed(8)
    network = build()
    torch.save({"params": network.state_dict()}, tmp_path / "their.pth")
    found = read_checkpoint(tmp_path / "their.pth", read_tensors(tmp_path / "their.pth"))
    source = Source.of(found, *found.modules)
    assert operators.items() <= source.graph.operators().items()
    picture = data.astronaut()
    crops = [np.ascontiguousarray(picture[y : y + 32, y : y + 32]) for y in (90, 200)]
    table = quantize_network(
        source.graph,
        crops,
        model=source.model.name,
        scale=source.scale,
        weights_sha256=source.model.sha256,
        calibration=calibration_record([]),
        method="min-max",
        concatenations="tied",
        tuning=Limit(minutes=5, steps=2),
    )
    variants = [Variant(kind, one) for kind in ("tflite", "onnx") for one in ("float32", "int8")]
    # Refuses a float32 file that differs from the network by 1e-5, an int8 one by two quanta from
    # its simulation.
    manifest = bundle_of(source, variants, tmp_path / "out", table, int8_reference)
    assert {one.file for one in manifest.artifacts} >= {
        variant.file_name(source.model.name, source.scale) for variant in variants
    }
    assert (manifest.halo is None) == source.graph.pools_globally
