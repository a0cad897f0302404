"""Opening an exported artifact, whatever its format, as one kind of session.

A session takes a float32 picture H × W × 3 (RGB, [0, 1]) and gives back the restored one; layouts,
half floats and int8 scales stay inside. ``run`` is ``prepare``, ``invoke`` and ``result`` in turn,
so that a benchmark can time ``invoke`` alone. A session is used by one thread at a time.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.errors import UserError
from runtime.formats import BY_SUFFIX, FORMATS
from runtime.manifest import PoolingTensors, read_manifest
from runtime.manifest import verify as verify_sha256

FloatPicture = NDArray[np.float32]

_PROBE_SIZE = (8, 8)


@dataclass(frozen=True)
class Description:
    """What the manifest says of a file that a session needs to know.

    Attributes:
        scale: Upscaling factor.
        halo: Input pixels around a tile that its output depends on.
        pooling: Tensors besides the pictures of a file that restores tiles for another.
        tiled_by: Name of the file that restores tiles in the place of this one.
    """

    scale: int
    halo: int
    pooling: PoolingTensors | None = None
    tiled_by: str | None = None


class Session(ABC):
    """An artifact ready to run.

    Attributes:
        scale: Upscaling factor; 1 for networks that keep the size.
        halo: Input pixels around a tile that its output depends on; None without a manifest.
        fixed_size: Height and width of the only input the artifact takes; None if it takes any.
        runtime_name: Runtime, version and device that really execute it.
        pooling: Tensors besides the pictures of a file that restores tiles for another.
        tiled_by: Name of the file that restores tiles in the place of this one, whose network pools
            over the whole picture; None if this one restores tiles itself.
        open_tiled: Opens that file.
    """

    def __init__(
        self, runtime_name: str, fixed_size: tuple[int, int] | None, description: Description | None
    ) -> None:
        # Subclasses call this last: without a manifest the scale is found by running the network.
        self.runtime_name = runtime_name
        self.fixed_size = fixed_size
        self.pooling = description.pooling if description else None
        self.tiled_by = description.tiled_by if description else None
        self.open_tiled: Callable[[], Session] | None = None
        self.halo = description.halo if description else None
        self.scale = description.scale if description else self._probed_scale()

    def run(self, image: FloatPicture) -> FloatPicture:
        """Restore a picture.

        Args:
            image: H × W × 3, float32, RGB in [0, 1].

        Returns:
            scale·H × scale·W × 3, float32, not clamped.

        Raises:
            UserError: If the artifact has a fixed size and the picture another one, or if the
                runtime cannot run it at this size.
        """
        self.prepare(image)
        self.invoke()
        return self.result()

    def run_pooled(
        self, image: FloatPicture, pooled: FloatPicture | None
    ) -> tuple[FloatPicture, FloatPicture]:
        """Run a file that was cut at its global pooling.

        Args:
            image: H × W × 3, a tile.
            pooled: C, the features' average over the whole picture; None in the pass that finds
                it.

        Returns:
            The restored tile, and its features, H × W × C.
        """
        assert self.pooling is not None
        self.prepare(image)
        channels = self.pooling.pooled.channels
        self._feed_pooled(np.zeros(channels, np.float32) if pooled is None else pooled)
        self.invoke()
        return self.result(), self._features()

    def prepare(self, image: FloatPicture) -> None:
        """Convert a picture and hand it to the runtime, which adapts to its size if need be."""
        if self.fixed_size not in (None, image.shape[:2]):
            raise UserError(
                f"this artifact takes pictures of {_size(self.fixed_size)} only; got "
                f"{_size(image.shape[:2])}; restore with tiles or export it without a fixed size"
            )
        self._feed(np.ascontiguousarray(image, np.float32))

    @abstractmethod
    def invoke(self) -> None:
        """Run the network on the prepared picture."""

    @abstractmethod
    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""

    @abstractmethod
    def close(self) -> None:
        """Release the runtime's memory."""

    @abstractmethod
    def _feed(self, image: FloatPicture) -> None:
        """Hand a contiguous picture of a permitted size to the runtime."""

    @abstractmethod
    def _feed_pooled(self, pooled: FloatPicture) -> None:
        """Hand the pooled vector to the runtime, after the picture."""

    @abstractmethod
    def _features(self) -> FloatPicture:
        """Return the features of the last ``invoke``, H × W × C."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _probed_scale(self) -> int:
        height, width = self.fixed_size or _PROBE_SIZE
        restored = self.run(np.zeros((height, width, 3), np.float32))
        scale: int = restored.shape[0] // height
        if scale < 1 or restored.shape != (scale * height, scale * width, 3):
            raise UserError(
                f"this artifact turns {height}×{width}×3 into "
                f"{'×'.join(map(str, restored.shape))}; expected a whole multiple of the height "
                "and width and three channels: export a restoration network"
            )
        return scale


def open(  # noqa: A001  (``runtime.open`` is the name people type)
    path: str | os.PathLike[str],
    verify: bool = True,
    runtime: str | None = None,
    threads: int | None = None,
) -> Session:
    """Open a ``.tflite``, ``.onnx`` or ``.mlpackage`` artifact.

    Args:
        path: The artifact. A ``manifest.json`` beside it that names it gives scale and halo.
        verify: Whether to compare its SHA-256 with that manifest.
        runtime: ``litert``, ``onnxruntime``, ``openvino`` or ``coreml``; None is the usual one for
            the suffix.
        threads: CPU threads; None uses every available core.

    Raises:
        UserError: If the file is missing, damaged, of another kind than its suffix says, differs
            from its manifest, is no picture-to-picture network, or if its runtime is missing.
    """
    path = Path(path)
    session = _opened(path, verify, runtime, threads)
    if session.tiled_by is not None:
        companion = path.with_name(session.tiled_by)
        session.open_tiled = lambda: _opened(companion, verify, runtime, threads)
    return session


def _opened(path: Path, verify: bool, runtime: str | None, threads: int | None) -> Session:
    engine = _runtime_for(path, runtime)
    if threads is not None and threads < 1:
        raise UserError(f"{threads} threads requested; choose 1 or more")
    if not path.exists():
        raise UserError(f"{path}: no such file; 'reslite export' makes one")
    if engine == "coreml":
        from runtime.engines.coreml_engine import CoreMLSession

        _require_system(path)
        return CoreMLSession(path, _description_of(path, verify))
    _check_content(path)
    found = _description_of(path, verify)
    if engine == "litert":
        from runtime.engines.litert_engine import LiteRTSession

        return LiteRTSession(path, found, threads or available_cores())
    if engine == "openvino":
        from runtime.engines.openvino_engine import OpenVINOSession

        return OpenVINOSession(path, found, threads or available_cores())
    from runtime.engines.onnxruntime_engine import OnnxSession

    return OnnxSession(path, found, threads or available_cores())


def _require_system(path: Path) -> None:
    """Refuse a file whose format cannot run on this system."""
    kind = BY_SUFFIX[path.suffix.lower()]
    if not kind.runs_here():
        others = " or ".join(one.suffix for one in FORMATS.values() if one.runs_here())
        raise UserError(
            f"{path}: {kind.title} runs on {' and '.join(kind.systems)} only; open the {others} "
            "artifact here"
        )


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_picture_tensors(
    file: str,
    layout: Literal["NCHW", "NHWC"],
    inputs: Sequence[Sequence[int | None]],
    outputs: Sequence[Sequence[int | None]],
) -> tuple[int, int] | None:
    """Check that a network takes one RGB picture and gives one, and return its fixed size.

    Args:
        file: Name for the error.
        layout: Order of the dimensions.
        inputs: Shapes of all inputs, None for an extent that is free.
        outputs: Shapes of all outputs.

    Returns:
        Height and width if the input's are fixed, None if both are free.

    Raises:
        UserError: If anything else was found.
    """
    channel, top = (1, 2) if layout == "NCHW" else (3, 1)
    for role, shapes in (("input", inputs), ("output", outputs)):
        if len(shapes) != 1:
            raise UserError(
                f"{file}: {len(shapes)} {role}s found, one picture expected; export it again"
            )
        shape = shapes[0]
        if len(shape) != 4 or shape[0] not in (None, 1) or shape[channel] not in (None, 3):
            found = "×".join("?" if extent is None else str(extent) for extent in shape)
            raise UserError(
                f"{file}: its {role} is {found}, expected one RGB picture ({layout}); "
                "export a network for RGB pictures"
            )
    height, width = inputs[0][top], inputs[0][top + 1]
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise UserError(
            f"{file}: only one of height and width is fixed; export it with both fixed or both free"
        )
    return height, width


def pictures_of(
    tensors: Sequence[Any],
    description: Description | None,
    name_of: Callable[[Any], str] = lambda tensor: tensor.name,
) -> list[Any]:
    """Return the tensors of a file that are pictures: all but those of its pooling."""
    if description is None or description.pooling is None:
        return list(tensors)
    others = {description.pooling.features.name, description.pooling.pooled.name}
    return [tensor for tensor in tensors if name_of(tensor) not in others]


def to_planes(image: FloatPicture, dtype: DTypeLike) -> NDArray[Any]:
    """Convert a picture H × W × C to a contiguous tensor 1 × C × H × W of ``dtype``."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis], dtype)


def from_planes(tensor: NDArray[Any]) -> FloatPicture:
    """Copy a tensor 1 × C × H × W to a picture H × W × C."""
    return np.array(tensor[0].transpose(1, 2, 0), np.float32)


def _runtime_for(path: Path, requested: str | None) -> str:
    suffix = path.suffix.lower()
    kind = BY_SUFFIX.get(suffix)
    if kind is None:
        raise UserError(
            f"{path}: unknown suffix '{suffix}'; expected {', '.join(BY_SUFFIX)} ('reslite export' "
            "makes them from a checkpoint)"
        )
    fitting = kind.engines
    if requested is None:
        return fitting[0]
    if requested not in fitting:
        raise UserError(f"{path.name}: opens with {' or '.join(fitting)}, not with '{requested}'")
    return requested


def _description_of(path: Path, verify: bool) -> Description | None:
    manifest = read_manifest(path.parent)
    entry = manifest.artifact(path.name) if manifest else None
    if entry is None:
        return None
    if verify:
        verify_sha256(path, entry)
    assert manifest is not None
    return Description(manifest.scale, manifest.halo, entry.pooling, entry.tiled_by)


def _check_content(path: Path) -> None:
    """Refuse a file whose first bytes show that it is something else than its suffix says."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file")
    with path.open("rb") as stream:
        head = stream.read(8)
    expected = "a TFLite model" if path.suffix.lower() == ".tflite" else "an ONNX model"
    found = _kind_of(head)
    # ONNX is plain protobuf: there is no signature that its first bytes must show.
    unrecognized = found is None and expected == "an ONNX model"
    if found != expected and not unrecognized:
        raise UserError(
            f"{path}: is {found or f'no model (it starts with {head!r})'}, not {expected}; "
            "give it its own suffix or export it again"
        )


def _kind_of(head: bytes) -> str | None:
    if not head:
        return "empty"
    if head[4:8] == b"TFL3":
        return "a TFLite model"
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive (a PyTorch checkpoint, perhaps)"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF")):
        return "a picture"
    # Field 1 of ModelProto, the version of its representation, is always written first.
    return "an ONNX model" if head.startswith(b"\x08") else None


def _size(size: Sequence[int] | None) -> str:
    return "×".join(map(str, size or ()))
