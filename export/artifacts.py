"""Artifacts: exported files, written from a lowered graph and compared with their reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import runtime
from export.graph import Graph
from export.lowered import Lowered
from export.parity import (
    Original,
    Restore,
    check_parity,
    in_levels,
    in_tiles,
    largest_difference,
    parity_pictures,
)
from export.rewrites.interpolations import interpolation_multadds
from export.rewrites.pooling import restores_tiles
from export.scales import ScaleTable
from export.sources.source import Source
from export.variants import Variant
from export.writers.description import Description
from export.writers.writing import Written
from runtime.engines.coreai_library import check_library as check_coreai
from runtime.formats import FORMATS, Format
from runtime.manifest import HD, Artifact, Measured, sha256_of, size_of

_OWN_LICENCE = "that of the weights of which the file was made; reslite itself is under Apache-2.0"

Simulate = Callable[[Graph, ScaleTable, Format], Restore]
"""Makes the reference of an int8 file, from a lowered graph, its table of scales and the format."""


def write_artifact(
    source: Source, variant: Variant, lowered: Lowered, folder: Path, table: ScaleTable | None
) -> Artifact:
    """Write the file of a variant into ``folder`` and return its entry, without measurements."""
    path = folder / variant.file_name(source.model.name, source.scale)
    scales = table if variant.precision == "int8" else None
    written = WRITERS[variant.format](lowered.graph, path, variant, table, description_of(source))
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
        interpolation_multadds=interpolation_multadds(source.graph, *HD),
        requires=written.requires,
    )


def check_writers(formats: Iterable[Format]) -> None:
    """Check that libraries of extras that write these formats are there, before anything is made.

    Raises:
        UserError: If one is missing or of a version that is not known; says what to install.
    """
    if "coreai" in formats:
        check_coreai()


def description_of(source: Source) -> Description:
    """Return what all files of a network say of it."""
    graph, model = source.graph, source.model
    return Description(
        model=model.name,
        scale=source.scale,
        halo=graph.halo() if restores_tiles(graph) else None,
        sides=graph.sides,
        source_sha256=model.sha256,
        licence=str(model.provenance.get("licence", _OWN_LICENCE)),
    )


def prove_artifact(
    source: Source,
    artifact: Artifact,
    lowered: Lowered,
    folder: Path,
    table: ScaleTable | None,
    simulate: Simulate | None,
    original: Original,
) -> Measured:
    """Run a file, check it against its reference and return its difference from the network.

    The reference is the network for float files and the simulator for int8 files. If the file
    cannot run on this machine, nothing is measured.

    Raises:
        ParityError: If the outputs of file and reference differ by more than is allowed.
    """
    if not FORMATS[artifact.format].runs_here():
        return Measured()
    # A file that restores tiles is run on a picture of several tiles; one would not test the halo.
    halo = source.graph.halo() if artifact.pooling is not None else None
    with runtime.open(folder / artifact.file) as session:
        pictures = parity_pictures(session.fixed_size, halo)
        if artifact.takes_images:
            pictures = [in_levels(one) for one in pictures]
        restore = session.run if halo is None else in_tiles(session)
        difference = largest_difference(restore, original.restore, pictures)
        if artifact.precision != "int8":
            check_parity(
                artifact.file,
                artifact.format,
                artifact.precision,
                difference,
                original.amplification,
                rounds=artifact.takes_images,
            )
        elif simulate is not None and table is not None:
            simulated = simulate(lowered.whole, table, artifact.format)
            apart = largest_difference(restore, simulated, pictures)
            # Integer files are exact for any network; Core AI's sums are float32.
            amplified = original.amplification if artifact.format == "coreai" else lambda: 1.0
            check_parity(artifact.file, artifact.format, artifact.precision, apart, amplified)
    return Measured(max_abs_diff=difference)


# Writers are imported on first use, because importing coremltools takes seconds.


def _onnx(
    graph: Graph, path: Path, variant: Variant, table: ScaleTable | None, told: Description
) -> Written:
    from export.writers.onnx_writer import write_onnx

    return write_onnx(graph, path, variant.precision, table, variant.size, told)


def _tflite(
    graph: Graph, path: Path, variant: Variant, table: ScaleTable | None, told: Description
) -> Written:
    from export.writers.tflite_writer import write_tflite

    return write_tflite(graph, path, variant.precision, table, variant.size, variant.float_io, told)


def _coreml(
    graph: Graph, path: Path, variant: Variant, table: ScaleTable | None, told: Description
) -> Written:
    from export.writers.coreml_writer import write_coreml

    return write_coreml(
        graph,
        path,
        variant.precision,
        table,
        variant.size,
        flexible=variant.flexible,
        ports=variant.ports,
        description=told,
    )


def _coreai(
    graph: Graph, path: Path, variant: Variant, table: ScaleTable | None, told: Description
) -> Written:
    from export.writers.coreai_writer import write_coreai

    return write_coreai(graph, path, variant.precision, table, variant.size, told)


_Writer = Callable[[Graph, Path, Variant, ScaleTable | None, Description], Written]

WRITERS: Mapping[Format, _Writer] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "coreml": _coreml,
    "coreai": _coreai,
}
"""The writer of each format; it reads the table of scales for int8 files only."""
