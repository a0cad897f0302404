"""Bundles: the files exported from one network at one scale, and their manifest.

What is already in the folder and still what the manifest says is kept, so that an interrupted
export goes on where it stopped; every new file is run and compared with its source at once.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import runtime
from export.capture import capture
from export.graph import Graph
from export.lowering import int8_form, lower
from export.parity import (
    Restore,
    check_parity,
    in_tiles,
    largest_difference,
    parity_pictures,
    restore_with,
)
from export.profiles import DEFAULT_PROFILES, QUANTIZED_FORM, profile_named
from export.rewrites.pooling import cut_at_pooling
from export.scales import ScaleTable, with_corrected_biases, with_requantization
from export.writers.writing import Written
from runtime.errors import UserError
from runtime.formats import Format, Precision
from runtime.manifest import (
    Artifact,
    Manifest,
    Measured,
    read_manifest,
    sha256_of,
    size_of,
)
from training.catalogue import Model, file_stem

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}
_TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "ai-edge-litert", "coremltools", "numpy")


@dataclass(frozen=True)
class Source:
    """A network at one scale, captured once and ready to export.

    Attributes:
        model: Where it comes from.
        scale: Upscaling factor.
        module: The torch module the files are compared with.
        graph: The captured graph.
    """

    model: Model
    scale: int
    module: nn.Module
    graph: Graph

    @classmethod
    def of(cls, model: Model, scale: int) -> Source:
        """Load and capture a model at one scale."""
        module = model.at_scale(scale)
        return cls(model, scale, module, capture(module))


@dataclass(frozen=True)
class Variant:
    """Which file to make of a network.

    Attributes:
        format: The file format.
        precision: The precision of its weights and activations.
        float_io: For int8 TFLite: float32 input and output around the integer network.
        size: Fixed height and width of the input, or None for any size.
        profile: Target profile, or None for the format's default.
        flexible: For Core ML: least and greatest side of the input, for the enumerated sizes.
        tiled: Cut at the global pooling, to restore tiles in two passes (see
            ``export.rewrites.pooling``).
    """

    format: Format
    precision: Precision
    float_io: bool = False
    size: tuple[int, int] | None = None
    profile: str | None = None
    flexible: tuple[int, int] | None = None
    tiled: bool = False

    def companion(self, graph: Graph) -> Variant | None:
        """Return the variant that restores tiles in this one's place, where there is to be one.

        That is for networks that pool globally, unless the input is fixed at a size that the halo
        fills: no picture can be cut into such tiles.
        """
        room = self.size is None or min(self.size) > 2 * graph.halo()
        if self.tiled or not graph.pools_globally or not room:
            return None
        return dataclasses.replace(self, tiled=True, float_io=False)

    def file_name(self, model: str, scale: int) -> str:
        """Return the name of the file, for example ``carn_m_x4_int8.tflite``."""
        parts = [file_stem(model, scale), self.precision]
        default = DEFAULT_PROFILES[self.format]
        if self.profile is not None and self.profile != default:
            parts.append(self.profile.replace("-", "_"))
        if self.float_io:
            parts.append("float_io")
        if self.tiled:
            parts.append("tiled")
        if self.size is not None:
            parts.append(f"{self.size[0]}x{self.size[1]}")
        if self.flexible is not None:
            parts.append(f"{self.flexible[0]}to{self.flexible[1]}")
        return "_".join(parts) + SUFFIXES[self.format]


DEFAULT_VARIANTS: tuple[Variant, ...] = (
    *(
        Variant(kind, precision)
        for kind in ("onnx", "tflite", "coreml")
        for precision in ("float32", "float16", "int8")
    ),
    Variant("tflite", "int8", float_io=True),
)


Simulate = Callable[[Graph, ScaleTable, Format], Restore]
"""Makes the reference of int8 files: from a lowered graph and its scales to restored pictures."""


def bundle_of(
    source: Source,
    variants: Sequence[Variant],
    folder: Path,
    table: ScaleTable | None = None,
    simulate: Simulate | None = None,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Export the variants that ``folder`` does not hold yet, and prove each of them.

    Of a network that pools globally every variant brings its companion, which restores tiles.
    The manifest is written after every file: an interrupted export goes on where it stopped. A
    file that fails its proof does not stay, and neither do those that other versions of the
    libraries or, with ``overwrite``, other weights made.

    Args:
        source: The network.
        variants: The files to make.
        folder: The bundle's folder.
        table: The scales; needed for int8.
        simulate: The reference for int8 files; without it their parity is not checked.
        overwrite: Export even what is there and valid, or of other weights.
        announce: Told what happens, a line per file.

    Returns:
        The manifest of all files in the bundle.

    Raises:
        ParityError: If a file does not compute what its source computes.
        UserError: If a variant cannot be made.
    """
    if any(map(_is_int8, variants)):
        table = _own_table(source, table)
    manifest, outdated = _existing(folder, source, overwrite)
    # Companions are variants of their own; several may share one.
    paired = [one for v in variants for one in (v.companion(source.graph), v) if one is not None]
    for variant in dict.fromkeys(paired):
        if not overwrite and _is_current(manifest, folder, source, variant, table):
            announce(f"kept      {variant.file_name(manifest.model, manifest.scale)}")
            continue
        try:
            artifact = _export(source, variant, folder, table)
            with_artifact(manifest, artifact).write(folder)
            measured = _proven(source, variant, artifact, folder, table, simulate)
        except BaseException:
            _discard(manifest, folder, variant.file_name(manifest.model, manifest.scale))
            raise
        manifest = with_artifact(manifest, dataclasses.replace(artifact, measured=measured))
        manifest.write(folder)
        announce(f"exported  {artifact.file}")
    for file in outdated:
        if manifest.artifact(file) is None:
            _remove(folder / file)
            announce(f"removed   {file}")
    return manifest


def _is_int8(variant: Variant) -> bool:
    return variant.precision == "int8"


def _lowered(
    source: Source, variant: Variant, table: ScaleTable | None
) -> tuple[Graph, tuple[str, ...]]:
    """Return the graph a variant's file holds, and the rewrites that made it."""
    profile = profile_named(variant.profile or DEFAULT_PROFILES[variant.format])
    if profile.format != variant.format:
        raise UserError(f"profile {profile.name} is for {profile.format}, not {variant.format}")
    rewrites = profile.rewrites(variant.precision)
    table = _own_table(source, table) if _is_int8(variant) else None
    if table is None:
        graph = lower(source.graph, rewrites)
    else:
        further = rewrites[len(QUANTIZED_FORM) :]
        graph = with_corrected_biases(int8_form(source.graph, table), table)
        graph = lower(graph, further)
        gains = ("with_gains",) if table.gains else ()
        roundings = ("with_roundings",) if table.roundings else ()
        rewrites = (*QUANTIZED_FORM, *gains, *roundings, "with_corrected_biases", *further)
    if variant.tiled:
        graph, rewrites = cut_at_pooling(graph), (*rewrites, "cut_at_pooling")
    if table is not None and table.requantized:
        graph, rewrites = with_requantization(graph, table), (*rewrites, "with_requantization")
    return graph, rewrites


def _own_table(source: Source, table: ScaleTable | None) -> ScaleTable:
    """Return ``table`` if it is one of the source's weights.

    Raises:
        UserError: If it is not.
    """
    if table is None:
        raise UserError(
            f"{source.model.name} ×{source.scale}: int8 needs a table of scales; 'reslite "
            "quantize' makes one"
        )
    if (table.weights_sha256, table.scale) != (source.model.sha256, source.scale):
        raise UserError(
            f"{source.model.path}: the table of scales was made for other weights or another scale "
            f"than ×{source.scale}; 'reslite quantize' makes one for 'reslite export --scales', "
            "'reslite ship --calibration' makes and uses it"
        )
    return table


def _export(source: Source, variant: Variant, folder: Path, table: ScaleTable | None) -> Artifact:
    graph, rewrites = _lowered(source, variant, table)
    path = folder / variant.file_name(source.model.name, source.scale)
    scales = table if _is_int8(variant) else None
    written = _write(graph, path, variant, table)
    companion = variant.companion(source.graph)
    return Artifact(
        file=path.name,
        format=variant.format,
        precision=variant.precision,
        sha256=sha256_of(path),
        bytes=size_of(path),
        input=written.input,
        output=written.output,
        profile=variant.profile or DEFAULT_PROFILES[variant.format],
        rewrites=rewrites,
        multadds=source.graph.multadds(1280, 720),
        operators=written.operators,
        calibration=scales.calibration if scales else None,
        scales_sha256=scales.sha256 if scales else None,
        pooling=written.pooling,
        tiled_by=companion.file_name(source.model.name, source.scale) if companion else None,
    )


def _proven(
    source: Source,
    variant: Variant,
    artifact: Artifact,
    folder: Path,
    table: ScaleTable | None,
    simulate: Simulate | None,
) -> Measured:
    """Run the file, check it against its reference and return its difference from the network."""
    if artifact.format == "coreml" and sys.platform != "darwin":
        return Measured()
    simulated = None
    if simulate is not None and table is not None and _is_int8(variant):
        # What is cut to restore tiles must restore what the whole graph does.
        whole, _ = _lowered(source, dataclasses.replace(variant, tiled=False), table)
        simulated = simulate(whole, table, variant.format)
    # A cut file has nothing to say of one tile: it is proven on a picture of several.
    halo = source.graph.halo() if artifact.pooling is not None else None
    with runtime.open(folder / artifact.file) as session:
        pictures = parity_pictures(session.fixed_size, halo)
        restore = session.run if halo is None else in_tiles(session)
        difference = largest_difference(restore, restore_with(source.module), pictures)
        if artifact.precision != "int8":
            check_parity(artifact.file, artifact.format, artifact.precision, difference)
        elif simulated is not None:
            apart = largest_difference(restore, simulated, pictures)
            check_parity(artifact.file, artifact.format, artifact.precision, apart)
    return Measured(max_abs_diff=difference)


def _write(graph: Graph, path: Path, variant: Variant, table: ScaleTable | None) -> Written:
    # Writers are imported when they are used: coremltools alone takes seconds.
    if variant.format == "tflite":
        from export.writers.tflite_writer import write_tflite

        return write_tflite(graph, path, variant.precision, table, variant.size, variant.float_io)
    if variant.format == "onnx":
        from export.writers.onnx_writer import write_onnx

        return write_onnx(graph, path, variant.precision, table, variant.size)
    from export.writers.coreml_writer import write_coreml

    return write_coreml(
        graph, path, variant.precision, table, variant.size, flexible=variant.flexible
    )


def empty_manifest(source: Source) -> Manifest:
    """Return the manifest of a bundle of ``source`` that holds no files yet."""
    return Manifest(
        model=source.model.name,
        scale=source.scale,
        halo=source.graph.halo(),
        weights_sha256=source.model.sha256,
        training=provenance(source.model),
        tools=tool_versions(),
        artifacts=(),
    )


def provenance(model: Model) -> dict[str, Any]:
    """Return what the manifest says of the weights: the training record and the recipe."""
    return {**model.training, "recipe": model.recipe.model_dump(mode="json")}


def tool_versions() -> dict[str, str]:
    """Return the versions of the libraries that write the files."""
    versions = {}
    for name in ("reslite", *_TOOLS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _existing(folder: Path, source: Source, overwrite: bool) -> tuple[Manifest, list[str]]:
    """Return what a folder holds of the source, and the files of it that are outdated.

    Raises:
        UserError: If the folder holds the bundle of another model or scale or, unless that is to be
            replaced, of other weights, or a damaged manifest.
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
        return fresh, [one.file for one in present]
    return dataclasses.replace(manifest, artifacts=tuple(present)), []


def holds(folder: Path, file: str, table: ScaleTable | None = None) -> bool:
    """Tell whether a bundle holds a proven file, unchanged, of today's tools and these scales.

    Args:
        folder: The bundle.
        file: Name in it; what restores tiles in its place counts, too.
        table: The scales of int8 files.
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


def _is_current(
    manifest: Manifest, folder: Path, source: Source, variant: Variant, table: ScaleTable | None
) -> bool:
    """Tell whether ``folder`` already holds the file, unchanged and made in the same way."""
    artifact = manifest.artifact(variant.file_name(manifest.model, manifest.scale))
    return (
        artifact is not None
        and artifact.rewrites == _lowered(source, variant, table)[1]
        and _is_whole(artifact, folder, table)
    )


def _is_whole(artifact: Artifact, folder: Path, table: ScaleTable | None) -> bool:
    """Tell whether a file is there, proven, unchanged and from these scales."""
    path = folder / artifact.file
    scales_sha256 = table.sha256 if table and artifact.precision == "int8" else None
    return (
        path.exists()
        and artifact.scales_sha256 == scales_sha256
        and sha256_of(path) == artifact.sha256
        and _is_proven(artifact)
    )


def _is_proven(artifact: Artifact) -> bool:
    """Tell whether a file was compared with its source; off macOS Core ML packages cannot be."""
    return artifact.measured.max_abs_diff is not None or artifact.format == "coreml"


def _discard(manifest: Manifest, folder: Path, file: str) -> None:
    """Leave of an export that did not come to its end what the manifest said before it."""
    known, path = manifest.artifact(file), folder / file
    if not path.exists():
        return
    if known is None or not _is_proven(known) or sha256_of(path) != known.sha256:
        manifest = _without_artifact(manifest, file)
        _remove(path)
    manifest.write(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _without_artifact(manifest: Manifest, file: str) -> Manifest:
    """Return the manifest without the entry of ``file``, if it has one."""
    others = tuple(entry for entry in manifest.artifacts if entry.file != file)
    return dataclasses.replace(manifest, artifacts=others)


def with_artifact(manifest: Manifest, artifact: Artifact) -> Manifest:
    """Return the manifest with ``artifact`` added, or replaced where its file was known."""
    others = _without_artifact(manifest, artifact.file).artifacts
    ordered = sorted([*others, artifact], key=lambda entry: entry.file)
    return dataclasses.replace(manifest, artifacts=tuple(ordered))
