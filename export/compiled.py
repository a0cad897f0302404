"""Files compiled for one chip: Qualcomm's context binaries, which phones load without compiling.

Each is an ONNX file around the binary (an ``EPContext`` operator) that ONNX Runtime opens with its
provider for Qualcomm, on that chip only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

import runtime
from export.parity import parity_pictures
from runtime.atomic import replacing
from runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from runtime.errors import UserError
from runtime.manifest import Artifact, Compiled, Manifest, sha256_of, size_of
from runtime.qualcomm_htp import PACKAGE, TESTED, htp_precisions, missing_qnn, open_on_htp
from runtime.session import Session
from runtime.snapdragon import Snapdragon

LEAST_DECIBELS = 30
"""Less is not another rounding but another computation."""

_CONTEXT = {"ep.context_enable": "1", "ep.context_embed_mode": "1"}


def check_compilers(targets: Sequence[Snapdragon]) -> None:
    """Check that files can be compiled for these chips on this machine.

    Raises:
        UserError: If the compiler is missing; names the command that installs it.
    """
    missing = missing_qnn() if targets else None
    if missing is not None:
        raise UserError(f"compiling for {targets[0].name} {missing}")


def compile_bundle(
    manifest: Manifest,
    folder: Path,
    targets: Sequence[Snapdragon],
    announce: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Compile the ONNX files of fixed size for chips, and write the manifest after each.

    int8 and, where the chip's compiler takes it, float16: the chips compute float32 as float16. A
    compiled file is opened and run in the simulation of the chip and compared with its source on
    this machine. Files that exist and are made of the same source by the same compiler are kept.

    Args:
        manifest: The bundle.
        folder: Its folder.
        targets: The chips.
        announce: Receives one line per file.

    Raises:
        UserError: If the bundle has no such file, or a chip does not take one or computes something
            else.
    """
    check_compilers(targets)
    sources = [one for one in manifest.artifacts if _is_source(one)]
    if targets and not sources:
        raise UserError("NPUs take ONNX files of fixed size in int8 or float16; add --size 128x128")
    if targets and _compiler() != f"{PACKAGE} {TESTED}":
        announce(f"warning   {_compiler()}: reslite was tested with {TESTED}")
    for soc in targets:
        for source in sources:
            if source.precision not in htp_precisions(soc):
                continue
            file = f"{Path(source.file).stem}_{soc.name}.onnx"
            if _is_current(manifest, folder, file, source):
                announce(f"kept      {file}")
                continue
            made = _compile(manifest, source, folder / file, soc)
            others = [one for one in manifest.compiled if one.file != file]
            ordered = sorted([*others, made], key=lambda one: one.file)
            manifest = dataclasses.replace(manifest, compiled=tuple(ordered))
            manifest.write(folder)
            announce(f"compiled  {file}")
    return manifest


def _is_source(artifact: Artifact) -> bool:
    return (
        artifact.format == "onnx"
        and artifact.precision != "float32"
        and artifact.fixed_size is not None
        and artifact.pooling is None
    )


def _is_current(manifest: Manifest, folder: Path, file: str, source: Artifact) -> bool:
    """Tell whether a compiled file exists, unchanged and made of ``source`` by this compiler."""
    path = folder / file
    return path.exists() and any(
        one.file == file
        and one.source_sha256 == source.sha256
        and one.compiler == _compiler()
        and one.sha256 == sha256_of(path)
        for one in manifest.compiled
    )


def _compile(manifest: Manifest, source: Artifact, compiled: Path, soc: Snapdragon) -> Compiled:
    """Compile a file, run the result in the simulation and describe it.

    Raises:
        UserError: If the chip does not take the file or computes something else.
    """
    path = compiled.with_name(source.file)
    with replacing(compiled) as temporary:
        entries = {**_CONTEXT, "ep.context_file_path": str(temporary)}
        open_on_htp(path, source.precision, soc, entries)
        decibels = _distance(manifest, source, path, temporary, soc)
        if decibels < LEAST_DECIBELS:
            raise UserError(
                f"{source.file}: on {soc.name} its output is {decibels:.1f} dB from this "
                f"machine's, less than {LEAST_DECIBELS}; the chip computes something else"
            )
    return Compiled(
        file=compiled.name,
        source=source.file,
        source_sha256=source.sha256,
        target=soc.name,
        sha256=sha256_of(compiled),
        bytes=size_of(compiled),
        compiler=_compiler(),
        decibels=decibels,
    )


def _distance(
    manifest: Manifest, source: Artifact, path: Path, compiled: Path, soc: Snapdragon
) -> float:
    """Return the PSNR of a compiled file's output in the simulation and its source's here."""
    picture, *_ = parity_pictures(source.fixed_size)
    simulated = OnnxRuntimeEngine(soc.name, open_on_htp(compiled, source.precision, soc))
    with Session(compiled.name, simulated, manifest.scale, sides=manifest.sides) as session:
        output = session.run(picture)
    with runtime.open(path) as session:
        expected = session.run(picture)
    return float(-10 * np.log10(max(np.mean((output - expected) ** 2), 1e-20)))


def _compiler() -> str:
    return f"{PACKAGE} {metadata.version(PACKAGE)}"
