"""Opening an exported artifact: choice of the engine and lookup in the manifest."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from runtime.engines.engine import Engine
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX, FORMATS, USUAL_FORMATS, FileFormat
from runtime.manifest import Artifact, Manifest, read_manifest
from runtime.manifest import verify as verify_sha256
from runtime.session import Session

_PROBE_SIZE = (8, 8)
_MOST_THREADS = 1024  # more than any CPU has cores; LiteRT crashes at 100,000


def open(  # noqa: A001  (``runtime.open`` is the name people type)
    path: str | os.PathLike[str],
    verify: bool = True,
    runtime: str | None = None,
    threads: int | None = None,
) -> Session:
    """Open an artifact of any format in ``runtime.formats``.

    Args:
        path: The artifact. Scale and halo come from a ``manifest.json`` in its folder, if the
            manifest lists the file.
        verify: Whether to compare the file's SHA-256 with the manifest.
        runtime: One of the format's engines: ``litert``, ``onnxruntime``, ``openvino``, ``coreml``
            or ``coreai``; None selects the format's default.
        threads: CPU threads; None uses every available core.

    Raises:
        UserError: If the file is missing, damaged, of another format than its suffix, differs from
            the manifest, is not a picture-to-picture network, or if its runtime is not installed.
    """
    path = Path(path)
    kind = _format_of(path)
    name = runtime or kind.engines[0]
    if name not in kind.engines:
        raise UserError(f"{path.name}: opens with {' or '.join(kind.engines)}, not with '{name}'")
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise UserError(
            f"{threads} threads requested; choose 1 to {_MOST_THREADS}, {available_cores()} cores "
            "are available"
        )
    if not path.exists():
        raise UserError(f"{path}: no such file; 'reslite export' makes one")
    _check_system(path, kind)
    _check_content(path, kind)
    described = _described(path, verify)
    engine = _engine(name, path, threads or available_cores())
    if described is None:
        return Session(path.name, engine, _probed_scale(path.name, engine))
    manifest, artifact = described
    open_tiled = None
    if artifact.tiled_by is not None:
        open_tiled = partial(open, path.with_name(artifact.tiled_by), verify, runtime, threads)
    return Session(
        path.name,
        engine,
        manifest.scale,
        manifest.halo,
        artifact.pooling,
        open_tiled,
        whole=manifest.halo is None,
        sides=manifest.sides,
    )


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _engine(name: str, path: Path, threads: int) -> Engine:
    # Imported by name, so that only the library of this engine is loaded.
    engine: Engine = import_module(f"runtime.engines.{name}_engine").open_engine(path, threads)
    return engine


def _format_of(path: Path) -> FileFormat:
    suffix = path.suffix.lower()
    if suffix not in BY_SUFFIX:
        raise UserError(
            f"{path}: unknown suffix '{suffix}'; expected {', '.join(BY_SUFFIX)} ('reslite export' "
            "makes them from a checkpoint)"
        )
    return BY_SUFFIX[suffix]


def _check_system(path: Path, kind: FileFormat) -> None:
    if not kind.runs_here():
        others = " or ".join(
            FORMATS[name].suffix for name in USUAL_FORMATS if FORMATS[name].runs_here()
        )
        raise UserError(
            f"{path}: {kind.title} runs on {' and '.join(kind.systems)} only; open the {others} "
            "artifact here"
        )


def _check_content(path: Path, kind: FileFormat) -> None:
    """Refuse a file whose first bytes belong to another format than its suffix."""
    if kind.is_folder:
        return
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file")
    with path.open("rb") as stream:
        head = stream.read(8)
    found, expected = _kind_of(head), _model(kind.title)
    # TFLite files have a signature; ONNX is plain protobuf, which has none.
    unrecognized = found is None and expected != _model("TFLite")
    if found != expected and not unrecognized:
        raise UserError(
            f"{path}: is {found or f'no model (it starts with {head!r})'}, not {expected}; "
            "give it its own suffix or export it again"
        )


def _kind_of(head: bytes) -> str | None:
    if not head:
        return "empty"
    if head[4:8] == b"TFL3":
        return _model("TFLite")
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive (a PyTorch checkpoint, perhaps)"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF")):
        return "a picture"
    # 0x08 is the tag of ModelProto's field 1 (ir_version), which is always written first.
    return _model("ONNX") if head.startswith(b"\x08") else None


def _model(title: str) -> str:
    return f"{'an' if title[0] in 'AEIOU' else 'a'} {title} model"


def _described(path: Path, verify: bool) -> tuple[Manifest, Artifact] | None:
    """Return the manifest beside a file and the file's entry in it; None if there is no entry."""
    manifest = read_manifest(path.parent)
    artifact = manifest.artifact(path.name) if manifest else None
    if manifest is None or artifact is None:
        return None
    if verify:
        try:
            verify_sha256(path, artifact)
        except UserError as error:
            raise UserError(f"{error} or pass --no-verify") from error
    return manifest, artifact


def _probed_scale(file: str, engine: Engine) -> int:
    """Return the scale of a network without a manifest, found by running it once."""
    session = Session(file, engine, scale=1)
    height, width = session.fixed_size or _PROBE_SIZE
    restored = session.run(np.zeros((height, width, 3), np.float32))
    scale: int = restored.shape[0] // height
    if scale < 1 or restored.shape != (scale * height, scale * width, 3):
        raise UserError(
            f"this artifact turns {height}×{width}×3 into {'×'.join(map(str, restored.shape))}; "
            "expected a whole multiple of the height and width and three channels: export a "
            "restoration network"
        )
    return scale
