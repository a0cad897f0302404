"""A tiny CARN-M and a bundle of it: small enough to run in milliseconds, real in every part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pairs import Pair
from export.capture.torch_capture import capture
from export.execution import activations_of
from export.graph import Graph
from export.lowering import lower
from export.profiles import QUANTIZED_FORM, profile_named
from export.rewrites.requantization import with_requantization
from export.scales import PIXELS, Quantization, ScaleTable
from export.writers.onnx_writer import write_onnx
from export.writers.tflite_writer import write_tflite
from export.writers.writing import Written
from runtime.manifest import (
    Artifact,
    Calibration,
    Format,
    Manifest,
    Precision,
    sha256_of,
    size_of,
)
from training.networks.carn import AtScale, Carn, CarnConfig
from training.tasks import SUPER_RESOLUTION


@dataclass(frozen=True)
class Tiny:
    """A tiny network, its graph and a table of scales."""

    module: AtScale
    graph: Graph
    table: ScaleTable


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """A seeded CARN-M for ×2 of 8 channels with one block of two units."""
    return _tiny(2)


@pytest.fixture(scope="session")
def tiny_x3() -> Tiny:
    """The same for ×3."""
    return _tiny(3)


def _tiny(scale: int) -> Tiny:
    torch.manual_seed(0)
    config = CarnConfig(
        channels=8, blocks=1, units=2, groups=2, efficient=True, recursive=True, scales=(scale,)
    )
    module = AtScale(Carn(config), scale).eval()
    graph = capture(module)
    return Tiny(module, graph, _table_of(graph))


@pytest.fixture(scope="session")
def write_artifact(tiny: Tiny) -> Callable[..., Artifact]:
    """Write one file of the tiny network and describe it."""

    def write(
        folder: Path,
        format: Format,
        precision: Precision,
        *,
        graph: Graph = tiny.graph,
        table: ScaleTable = tiny.table,
        size: tuple[int, int] | None = None,
        profile: str | None = None,
        float_io: bool = False,
    ) -> Artifact:
        profile = profile or {"tflite": "litert-cpu", "onnx": "ort-cpu"}[format]
        lowered = lower(graph, profile_named(profile).rewrites(precision))
        path = folder / f"tiny_x2_{precision}{'_float_io' if float_io else ''}.{format}"
        written: Written
        if precision == "int8":
            lowered = with_requantization(lowered, table)
        scales = table if precision == "int8" else None
        if format == "tflite":
            written = write_tflite(lowered, path, precision, scales, size, float_io)
        else:
            written = write_onnx(lowered, path, precision, scales, size)
        return Artifact(
            file=path.name,
            format=format,
            precision=precision,
            sha256=sha256_of(path),
            bytes=size_of(path),
            input=written.input,
            output=written.output,
            profile=profile,
            rewrites=(),
            multadds=graph.multadds(1280, 720),
            operators=written.operators,
        )

    return write


@pytest.fixture(scope="session")
def manifest_of(tiny: Tiny) -> Callable[..., Manifest]:
    """Describe a bundle of the tiny network."""

    def describe(*artifacts: Artifact) -> Manifest:
        return Manifest(
            model="tiny",
            scale=2,
            halo=tiny.graph.halo(),
            weights_sha256="0123456789abcdef",
            training={},
            tools={},
            artifacts=artifacts,
        )

    return describe


@pytest.fixture(scope="session")
def pairs(astronaut: np.ndarray) -> list[Pair]:
    """Two small crops and their halves."""
    crops = {"face": astronaut[60:124, 200:264], "flag": astronaut[300:348, 20:84]}
    return [Pair.degraded(name, crop, SUPER_RESOLUTION, 2) for name, crop in crops.items()]


def _table_of(captured: Graph) -> ScaleTable:
    graph = lower(captured, QUANTIZED_FORM)
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    activations = {
        graph.origin(name): Quantization.of_range(float(value.min()), float(value.max()))
        for name, value in activations_of(graph, image).items()
    }
    activations |= {graph.input: PIXELS, graph.output: PIXELS}
    concats = [node for node in graph.nodes if node.op == "Concat"]
    # A shuffle moves values unchanged, so that it has the scale of its input.
    for node in graph.nodes:
        if node.op == "DepthToSpace":
            activations[node.output] = activations[node.inputs[0]]
    return ScaleTable(
        model="tiny",
        scale=2,
        weights_sha256="",
        method="min-max",
        activations=activations,
        requantized=tuple((value, node.output) for node in concats for value in node.inputs),
        calibration=Calibration(("noise",), ""),
    )
