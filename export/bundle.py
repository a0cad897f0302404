"""Bundles: the files exported from one network at one scale, and their manifest.

What is already in the folder and still what the manifest says is kept, so that an interrupted
export goes on where it stopped; every new file is run and compared with its source at once.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import runtime
from export.capture import capture
from export.gains import int8_form
from export.graph import Graph
from export.lowering import lower
from export.parity import (
    Restore,
    check_parity,
    in_tiles,
    largest_difference,
    parity_pictures,
    restore_with,
)
from export.pooling import cut_at_pooling
from export.profiles import DEFAULT_PROFILES, QUANTIZED_FORM, profile_named
from export.scales import ScaleTable, with_corrected_biases, with_requantization
from export.writing import Written
from runtime.errors import UserError
from runtime.manifest import (
    Artifact,
    Format,
    Manifest,
    Measured,
    Precision,
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
        tiled: Cut at the global pooling, to restore tiles in two passes (see ``export.pooling``).
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
    The manifest is written after every file: an interrupted export goes on where it stopped.

    Args:
        source: The network.
        variants: The files to make.
        folder: The bundle's folder.
        table: The scales; needed for int8.
        simulate: The reference for int8 files; without it their parity is not checked.
        overwrite: Export even what is there and valid.
        announce: Told what happens, a line per file.

    Returns:
        The manifest of all files in the bundle.

    Raises:
        ParityError: If a file does not compute what its source computes.
        UserError: If a variant cannot be made.
    """
    manifest = existing_manifest(folder, source)
    # Companions are variants of their own; several may share one.
    paired = [one for v in variants for one in (v.companion(source.graph), v) if one is not None]
    for variant in dict.fromkeys(paired):
        if not overwrite and _is_current(manifest, folder, source, variant, table):
            announce(f"kept      {variant.file_name(manifest.model, manifest.scale)}")
            continue
        graph, rewrites = _lowered(source, variant, table)
        artifact = _export(source, graph, rewrites, variant, folder, table)
        manifest = with_artifact(manifest, artifact)
        manifest.write(folder)
        reference = None
        if simulate is not None and table is not None and _is_int8(variant):
            # What is cut to restore tiles must restore what the whole graph does.
            whole, _ = _lowered(source, dataclasses.replace(variant, tiled=False), table)
            reference = simulate(whole, table, variant.format)
        measured = _proven(source, artifact, folder, reference)
        manifest = with_artifact(manifest, dataclasses.replace(artifact, measured=measured))
        manifest.write(folder)
        announce(f"exported  {artifact.file}")
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
            f"{source.model.name} ×{source.scale}: int8 needs a table of scales; run "
            "'reslite quantize' first or pass --calibration DIR"
        )
    if table.weights_sha256 != source.model.sha256:
        raise UserError(
            f"{source.model.path.name}: the table of scales was made for other weights; run "
            f"'reslite quantize' for these and pass --scales"
        )
    return table


def _export(
    source: Source,
    graph: Graph,
    rewrites: tuple[str, ...],
    variant: Variant,
    folder: Path,
    table: ScaleTable | None,
) -> Artifact:
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
    source: Source, artifact: Artifact, folder: Path, simulated: Restore | None
) -> Measured:
    """Run the file, check it against its reference and return its difference from the network."""
    if artifact.format == "coreml" and sys.platform != "darwin":
        return Measured()
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
        from export.tflite_writer import write_tflite

        return write_tflite(graph, path, variant.precision, table, variant.size, variant.float_io)
    if variant.format == "onnx":
        from export.onnx_writer import write_onnx

        return write_onnx(graph, path, variant.precision, table, variant.size)
    from export.coreml_writer import write_coreml

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


def existing_manifest(folder: Path, source: Source) -> Manifest:
    """Return the folder's manifest if it is of the same weights, else an empty one.

    Raises:
        UserError: If the folder holds the bundle of another model or scale.
    """
    manifest = read_manifest(folder)
    fresh = empty_manifest(source)
    if manifest is None:
        return fresh
    if (manifest.model, manifest.scale) != (fresh.model, fresh.scale):
        raise UserError(
            f"{folder}: holds a bundle of {manifest.model} ×{manifest.scale}; choose another --out"
        )
    if manifest.weights_sha256 != fresh.weights_sha256 or manifest.tools != fresh.tools:
        return fresh
    return manifest


def _is_current(
    manifest: Manifest, folder: Path, source: Source, variant: Variant, table: ScaleTable | None
) -> bool:
    """Tell whether ``folder`` already holds the file, unchanged and from the same scales."""
    artifact = manifest.artifact(variant.file_name(manifest.model, manifest.scale))
    if artifact is None or not (folder / artifact.file).exists():
        return False
    scales_sha256 = table.sha256 if table and _is_int8(variant) else None
    return (
        artifact.rewrites == _lowered(source, variant, table)[1]
        and artifact.scales_sha256 == scales_sha256
        and sha256_of(folder / artifact.file) == artifact.sha256
        and (artifact.measured.max_abs_diff is not None or artifact.format == "coreml")
    )


def with_artifact(manifest: Manifest, artifact: Artifact) -> Manifest:
    """Return the manifest with ``artifact`` added, or replaced where its file was known."""
    others = [entry for entry in manifest.artifacts if entry.file != artifact.file]
    ordered = sorted([*others, artifact], key=lambda entry: entry.file)
    return dataclasses.replace(manifest, artifacts=tuple(ordered))
