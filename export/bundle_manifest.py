"""The manifest of a bundle, kept true to the files: which exist, are proven and are current."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
from pathlib import Path

from export.rewrites.pooling import restores_tiles
from export.scales import ScaleTable
from export.sources.source import Source
from export.variants import Variant
from runtime.errors import UserError
from runtime.formats import FORMATS
from runtime.manifest import Artifact, Manifest, read_manifest, sha256_of

_TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "ai-edge-litert", "coremltools", "numpy")


def empty_manifest(source: Source) -> Manifest:
    """Return the manifest of a bundle of ``source`` that holds no files yet."""
    return Manifest(
        model=source.model.name,
        scale=source.scale,
        halo=source.graph.halo() if restores_tiles(source.graph) else None,
        weights_sha256=source.model.sha256,
        training=dict(source.model.provenance),
        tools=tool_versions(),
        artifacts=(),
        multiple=source.graph.sides.multiple,
        minimum=source.graph.sides.minimum,
    )


def tool_versions() -> dict[str, str]:
    """Return the versions of the libraries that write the files."""
    versions = {}
    for name in ("reslite", *_TOOLS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def existing(folder: Path, source: Source, overwrite: bool) -> tuple[Manifest, list[str]]:
    """Return the manifest of the source's files in a folder, and the names of outdated files.

    Raises:
        UserError: If the folder holds the bundle of another model or scale or, without
            ``overwrite``, files of other weights or a damaged manifest.
    """
    fresh = empty_manifest(source)
    try:
        manifest = read_manifest(folder)
    except UserError:
        if not overwrite:
            raise
        return fresh, []
    if manifest is None:
        return fresh, []
    if (manifest.model, manifest.scale) != (fresh.model, fresh.scale):
        raise UserError(
            f"{folder}: holds a bundle of {manifest.model} ×{manifest.scale}; choose another --out"
        )
    same_weights = manifest.weights_sha256 == fresh.weights_sha256
    if not same_weights and not overwrite:
        raise UserError(
            f"{folder}: holds files of other weights of {manifest.model}; choose another --out or "
            "pass --overwrite"
        )
    present = [one for one in manifest.artifacts if (folder / one.file).exists()]
    if not same_weights or manifest.tools != fresh.tools:
        compiled = [one.file for one in manifest.compiled]
        return fresh, [*(one.file for one in present), *compiled]
    return dataclasses.replace(manifest, artifacts=tuple(present)), []


def holds(folder: Path, file: str, table: ScaleTable | None = None) -> bool:
    """Tell whether a bundle holds a file, proven, unchanged and made by the installed libraries.

    Args:
        folder: The bundle.
        file: Name of the file; its companion that restores tiles must be held, too.
        table: The scales that an int8 file must be made with.
    """
    try:
        manifest = read_manifest(folder)
    except UserError:
        return False
    if manifest is None or manifest.tools != tool_versions():
        return False
    artifact = manifest.artifact(file)
    if artifact is None or not _is_whole(artifact, folder, table):
        return False
    return artifact.tiled_by is None or holds(folder, artifact.tiled_by, table)


def is_current(
    manifest: Manifest,
    folder: Path,
    variant: Variant,
    rewrites: tuple[str, ...],
    table: ScaleTable | None,
) -> bool:
    """Tell whether ``folder`` already holds a file, unchanged and made in the same way."""
    artifact = manifest.artifact(variant.file_name(manifest.model, manifest.scale))
    return (
        artifact is not None
        and artifact.rewrites == rewrites
        # Older manifests lack ``float_io``.
        and artifact.float_io == variant.float_io
        # Older packages ask for a newer system than they need, and do not say which.
        and (artifact.requires is not None or artifact.format != "coreml")
        and _is_whole(artifact, folder, table)
    )


def _is_whole(artifact: Artifact, folder: Path, table: ScaleTable | None) -> bool:
    """Tell whether a file exists, proven, unchanged and made with these scales."""
    path = folder / artifact.file
    scales_sha256 = table.sha256 if table and artifact.precision == "int8" else None
    return (
        path.exists()
        and artifact.scales_sha256 == scales_sha256
        and sha256_of(path) == artifact.sha256
        and _is_proven(artifact)
    )


def _is_proven(artifact: Artifact) -> bool:
    """Tell whether a file was compared with its source, or cannot run on this machine."""
    return artifact.measured.max_abs_diff is not None or not FORMATS[artifact.format].runs_here()


def discard(manifest: Manifest, folder: Path, file: str) -> None:
    """Undo an export of ``file`` that failed: write the manifest as it was before the export.

    The file stays if it is unchanged since ``manifest`` recorded its proof.
    """
    known, path = manifest.artifact(file), folder / file
    if not path.exists():
        return
    if known is None or not _is_proven(known) or sha256_of(path) != known.sha256:
        manifest = _without_artifact(manifest, file)
        remove(path)
    manifest.write(folder)


def remove(path: Path) -> None:
    """Remove a file, or the folder of a Core ML package, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _without_artifact(manifest: Manifest, file: str) -> Manifest:
    """Return the manifest without the entry of ``file``, if it has one."""
    others = tuple(entry for entry in manifest.artifacts if entry.file != file)
    return dataclasses.replace(manifest, artifacts=others)


def with_artifact(manifest: Manifest, artifact: Artifact) -> Manifest:
    """Return the manifest with ``artifact`` added, in place of an entry of the same file."""
    others = _without_artifact(manifest, artifact.file).artifacts
    ordered = sorted([*others, artifact], key=lambda entry: entry.file)
    return dataclasses.replace(manifest, artifacts=tuple(ordered))
