"""Bundles: the files exported from one network at one scale, and their manifest.

Files that already exist, unchanged and made in the same way, are kept, so that an interrupted
export goes on where it stopped; every new file is run and compared with its source at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from export.artifacts import Simulate, check_writers, prove_artifact, write_artifact
from export.bundle_manifest import discard, existing, is_current, remove, with_artifact
from export.headroom import InHalf, Photographs, warning_of
from export.lowered import lower_for, own_table
from export.memory import check_size
from export.parity import Original
from export.scales import ScaleTable
from export.sources.source import Source
from export.variants import Variant
from runtime.manifest import Manifest


def bundle_of(
    source: Source,
    variants: Sequence[Variant],
    folder: Path,
    table: ScaleTable | None = None,
    simulate: Simulate | None = None,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda line: None,
    photographs: Photographs = tuple,
) -> Manifest:
    """Export the variants that ``folder`` does not hold yet, and prove each of them.

    If the network pools globally, every variant brings a companion file, which restores tiles. The
    manifest is written after every file, so that an interrupted export goes on where it stopped.
    Files that fail their proof are removed, and so are files made by other versions of the
    libraries or, with ``overwrite``, from other weights.

    Args:
        source: The network.
        variants: The files to make.
        folder: The bundle's folder.
        table: The scales; needed for int8.
        simulate: The reference for int8 files; without it their parity is not checked.
        overwrite: Export again what already exists and is valid, and replace files of other
            weights.
        announce: Receives one line per file, and one for each float16 file that half arithmetic
            damages.
        photographs: Returns pictures that float16 files are executed on, beside saturated colours.

    Returns:
        The manifest of all files in the bundle.

    Raises:
        ParityError: If a file's output differs from its reference by more than is allowed.
        UserError: If a variant cannot be made. One whose size needs more memory than there is is
            refused before the first file is written.
    """
    check_writers({variant.format for variant in variants})
    for size in {variant.size for variant in variants if variant.size is not None}:
        check_size(source.graph, size)
    if any(variant.precision == "int8" for variant in variants):
        table = own_table(source, table)
    manifest, outdated = existing(folder, source, overwrite)
    # Companions are variants of their own; several may share one.
    original = Original.of(source.module, source.graph.sides)
    in_half = InHalf(source.graph, photographs)
    paired = [one for v in variants for one in (v.companion(source.graph), v) if one is not None]
    for variant in dict.fromkeys(paired):
        file = variant.file_name(manifest.model, manifest.scale)
        half = variant.precision == "float16"
        lowered = lower_for(source, variant, table, in_half.gains if half else None)
        if not overwrite and is_current(manifest, folder, variant, lowered.rewrites, table):
            announce(f"kept      {file}")
            _warn(manifest, file, announce)
            continue
        try:
            artifact = write_artifact(source, variant, lowered, folder, table)
            with_artifact(manifest, artifact).write(folder)
            measured = prove_artifact(source, artifact, lowered, folder, table, simulate, original)
            executed = in_half.executed(lowered) if half else None
        except BaseException:
            discard(manifest, folder, file)
            raise
        artifact = dataclasses.replace(artifact, measured=measured, float16=executed)
        manifest = with_artifact(manifest, artifact)
        manifest.write(folder)
        announce(f"exported  {file}")
        _warn(manifest, file, announce)
    for file in outdated:
        if manifest.artifact(file) is None:
            remove(folder / file)
            announce(f"removed   {file}")
    return manifest


def _warn(manifest: Manifest, file: str, announce: Callable[[str], None]) -> None:
    artifact = manifest.artifact(file)
    found = None if artifact is None else artifact.float16
    line = None if found is None else warning_of(file, found)
    if line is not None:
        announce(f"warning   {line}")
