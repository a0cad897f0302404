"""Artifacts: each is written from its lowered form, run, and compared with its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import runtime
from export.graph import Graph
from export.lowered import Lowered
from export.parity import (
    Restore,
    check_parity,
    in_tiles,
    largest_difference,
    parity_pictures,
    restore_with,
)
from export.scales import ScaleTable
from export.sources import Source
from export.variants import Variant
from export.writers.writing import Written
from runtime.formats import FORMATS, Format
from runtime.manifest import HD, Artifact, Measured, sha256_of, size_of

Simulate = Callable[[Graph, ScaleTable, Format], Restore]
"""Makes the reference of int8 files: from a lowered graph and its scales to restored pictures."""


def write_artifact(
    source: Source, variant: Variant, lowered: Lowered, folder: Path, table: ScaleTable | None
) -> Artifact:
    """Write the file of a variant into ``folder`` and describe it; nothing is measured yet."""
    path = folder / variant.file_name(source.model.name, source.scale)
    scales = table if variant.precision == "int8" else None
    written = WRITERS[variant.format](lowered.graph, path, variant, table)
    companion = variant.companion(source.graph)
    return Artifact(
        file=path.name,
        format=variant.format,
        precision=variant.precision,
        sha256=sha256_of(path),
        bytes=size_of(path),
        input=written.input,
        output=written.output,
        profile=variant.target.name,
        rewrites=lowered.rewrites,
        multadds=source.graph.multadds(*HD),
        operators=written.operators,
        calibration=scales.calibration if scales else None,
        scales_sha256=scales.sha256 if scales else None,
        pooling=written.pooling,
        tiled_by=companion.file_name(source.model.name, source.scale) if companion else None,
        float_io=variant.float_io,
    )


def prove_artifact(
    source: Source,
    artifact: Artifact,
    lowered: Lowered,
    folder: Path,
    table: ScaleTable | None,
    simulate: Simulate | None,
) -> Measured:
    """Run a file, check it against its reference and return its difference from the network.

    Float files are checked against the network, int8 files against their simulation. Nothing is
    measured of a file that cannot run here.

    Raises:
        ParityError: If it does not compute what its reference computes.
    """
    if not FORMATS[artifact.format].runs_here():
        return Measured()
    # A file that restores tiles is proven on a picture of several: one tile says nothing.
    halo = source.graph.halo() if artifact.pooling is not None else None
    with runtime.open(folder / artifact.file) as session:
        pictures = parity_pictures(session.fixed_size, halo)
        restore = session.run if halo is None else in_tiles(session)
        difference = largest_difference(restore, restore_with(source.module), pictures)
        if artifact.precision != "int8":
            check_parity(artifact.file, artifact.format, artifact.precision, difference)
        elif simulate is not None and table is not None:
            simulated = simulate(lowered.whole, table, artifact.format)
            apart = largest_difference(restore, simulated, pictures)
            check_parity(artifact.file, artifact.format, artifact.precision, apart)
    return Measured(max_abs_diff=difference)


# Writers are imported when they are used: coremltools alone takes seconds.


def _onnx(graph: Graph, path: Path, variant: Variant, table: ScaleTable | None) -> Written:
    from export.writers.onnx_writer import write_onnx

    return write_onnx(graph, path, variant.precision, table, variant.size)


def _tflite(graph: Graph, path: Path, variant: Variant, table: ScaleTable | None) -> Written:
    from export.writers.tflite_writer import write_tflite

    return write_tflite(graph, path, variant.precision, table, variant.size, variant.float_io)


def _coreml(graph: Graph, path: Path, variant: Variant, table: ScaleTable | None) -> Written:
    from export.writers.coreml_writer import write_coreml

    return write_coreml(
        graph, path, variant.precision, table, variant.size, flexible=variant.flexible
    )


WRITERS: Mapping[Format, Callable[[Graph, Path, Variant, ScaleTable | None], Written]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "coreml": _coreml,
}
"""Writes a lowered graph as the file of a variant, by format; the table is that of int8 files."""
