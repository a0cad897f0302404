"""manifest.json: the description of a bundle, which travels with its artifacts.

The manifest names every file of a bundle with its SHA-256, its input and output, the halo that
tiling needs, the rewrites and scales it was made with, the origin of the weights, and the measured
figures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runtime.errors import UserError
from runtime.formats import Format, Precision
from runtime.records import read_record, write_record
from runtime.sides import Sides

MANIFEST = "manifest.json"
SCHEMA = 1
HD = (1280, 720)
"""Width and height of the restored picture that MultAdds refer to."""
_REMEDY = "export the bundle again, with --overwrite"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of an artifact.

    Attributes:
        name: Tensor name.
        layout: ``NCHW`` or ``NHWC``.
        dtype: ``float32``, ``float16``, ``int8`` or ``uint8``.
        shape: Four extents; None where the app may choose.
        minimum: Value of black, before quantization.
        maximum: Value of white, before quantization.
        scale: Quantization scale of an integer tensor.
        zero_point: Quantization zero point of an integer tensor.
    """

    name: str
    layout: Literal["NCHW", "NHWC"]
    dtype: str
    shape: tuple[int | None, ...]
    minimum: float = 0.0
    maximum: float = 1.0
    scale: float | None = None
    zero_point: int | None = None

    @property
    def channels(self) -> int:
        """Extent of the channels."""
        channels = self.shape[1 if self.layout == "NCHW" else 3]
        assert channels is not None
        return channels

    @property
    def height_and_width(self) -> tuple[int | None, int | None]:
        """Extents of height and width; None where the app may choose."""
        first = 2 if self.layout == "NCHW" else 1
        return self.shape[first], self.shape[first + 1]


@dataclass(frozen=True)
class PoolingTensors:
    """The additional tensors of a file cut at its global pooling, so that it can restore tiles.

    Run the file on every tile with any ``pooled``, average ``features`` over all pixels of the
    picture (each tile without its halo), and run the file on every tile again with the average.

    Attributes:
        features: Second output, besides the restored picture: a vector for every input pixel.
        pooled: Second input, besides the picture: the average of ``features``.
    """

    features: TensorInfo
    pooled: TensorInfo


@dataclass(frozen=True)
class Measured:
    """Measured figures of an artifact; None where a figure was not measured.

    Attributes:
        max_abs_diff: Largest difference from the source network, for outputs in [0, 1].
        psnr: PSNR in dB on the evaluation pictures: of Y for super-resolution, else of RGB.
        ssim: SSIM on the evaluation pictures.
        psnr_loss: Loss in dB against the source network on the same pictures.
        latency_median_ms: Median latency of one inference.
        latency_iqr_ms: Interquartile range of the latency.
    """

    max_abs_diff: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    psnr_loss: float | None = None
    latency_median_ms: float | None = None
    latency_iqr_ms: float | None = None


@dataclass(frozen=True)
class HalfPrecision:
    """What half arithmetic makes of a float16 file's network, executed here and not on a device.

    Attributes:
        largest: The largest magnitude of an activation in float32, or of a sum on the way to one.
        headroom: 65,504, the largest number of float16, divided by ``largest``.
        layer: The layer that makes it.
        psnr_in_half: PSNR in dB of the worst picture against the network in float32, where
            products, sums and results are float16; at most 100. Black stands for NaN.
        psnr_with_float32_sums: The same where results alone are float16.
        pictures: The number of pictures.
    """

    largest: float
    headroom: float
    layer: str
    psnr_in_half: float
    psnr_with_float32_sums: float
    pictures: int


@dataclass(frozen=True)
class Calibration:
    """The pictures that the scales were found on: file names and one hash over their contents."""

    pictures: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """One exported file (for Core ML and Core AI, a folder).

    Attributes:
        file: Name beside the manifest.
        format: ``onnx``, ``tflite``, ``coreml`` or ``coreai``.
        precision: ``float32``, ``float16`` or ``int8``.
        sha256: SHA-256 of the file, or of a folder's sorted relative paths and contents.
        bytes: Size.
        input: The picture tensor.
        output: The restored tensor.
        profile: Target profile that chose the rewrites.
        rewrites: Names of the rewrites applied, in order.
        multadds: Multiply-accumulates of the network at a 1280×720 output, as papers count them:
            without enlarging by interpolation.
        operators: How often each operator occurs in the file.
        calibration: The pictures that int8 scales were found on.
        measured: Measured figures.
        scales_sha256: SHA-256 of the table of scales, for int8.
        pooling: The additional tensors of a file cut at its global pooling.
        tiled_by: Name of the file to restore tiles with, if this file's network pools over the
            whole picture.
        float_io: Whether an int8 file takes and returns float32, in a format whose int8 files
            usually take and return integers.
        float16: What half arithmetic makes of a float16 file, as GPUs and NPUs compute.
        interpolation_multadds: Multiply-accumulates of the network's bicubic and bilinear
            enlargement as files do it, beside ``multadds``.
        requires: The least systems whose Core ML has the file's operators, for example
            ``iOS 15, macOS 12``.
    """

    file: str
    format: Format
    precision: Precision
    sha256: str
    bytes: int
    input: TensorInfo
    output: TensorInfo
    profile: str
    rewrites: tuple[str, ...]
    multadds: int
    operators: dict[str, int]
    calibration: Calibration | None = None
    measured: Measured = field(default_factory=Measured)
    scales_sha256: str | None = None
    pooling: PoolingTensors | None = None
    tiled_by: str | None = None
    float_io: bool = False
    float16: HalfPrecision | None = None
    interpolation_multadds: int = 0
    requires: str | None = None

    @property
    def takes_images(self) -> bool:
        """Whether it takes and returns images of the system instead of arrays."""
        return self.format == "coreml" and self.input.dtype == "uint8"

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the input if the file fixes them; None if they are free."""
        height, width = self.input.height_and_width
        return None if height is None or width is None else (height, width)


@dataclass(frozen=True)
class Compiled:
    """A file that a vendor's compiler made of an artifact, for one chip.

    Attributes:
        file: Name beside the manifest.
        source: Name of the artifact.
        source_sha256: SHA-256 of the artifact that was compiled.
        target: The chip, for example ``sm8650``.
        sha256: SHA-256 of the file.
        bytes: Size.
        compiler: The compiler and its version.
        decibels: PSNR of its output in the vendor's simulation of the chip and the artifact's on
            the machine that compiled it.
    """

    file: str
    source: str
    source_sha256: str
    target: str
    sha256: str
    bytes: int
    compiler: str
    decibels: float


@dataclass(frozen=True)
class Manifest:
    """A bundle of artifacts made from one network at one scale.

    Attributes:
        model: Model name.
        scale: Upscaling factor.
        halo: Input pixels around a tile that the tile's output depends on; None if the whole
            picture counts in a way that no file is cut at, so that pictures are never tiled.
        weights_sha256: SHA-256 of the trained weights.
        training: The training record of the weights.
        tools: Versions of the libraries that wrote the bundle.
        artifacts: The files.
        multiple: Pixels of which the sides of pictures must be multiples. The runtime reflects
            other pictures up to these and cuts the result.
        minimum: The least side of pictures, likewise.
        compiled: Files that were compiled of artifacts, for one chip each.
    """

    model: str
    scale: int
    halo: int | None
    weights_sha256: str
    training: dict[str, Any]
    tools: dict[str, str]
    artifacts: tuple[Artifact, ...]
    multiple: int = 1
    minimum: int = 1
    compiled: tuple[Compiled, ...] = ()

    @property
    def sides(self) -> Sides:
        """The heights and widths that the network takes."""
        return Sides(self.multiple, self.minimum)

    def artifact(self, file: str) -> Artifact | None:
        """Return the entry of ``file``, or None."""
        return next((entry for entry in self.artifacts if entry.file == file), None)

    def write(self, folder: Path) -> Path:
        """Write ``manifest.json`` into ``folder`` atomically and return its path."""
        path = folder / MANIFEST
        write_record(path, self, SCHEMA)
        return path


def read_manifest(folder: Path) -> Manifest | None:
    """Read ``manifest.json`` of ``folder``; None if there is none.

    Raises:
        UserError: If it is damaged, of another schema version or names files outside the folder.
    """
    try:
        manifest = read_record(folder / MANIFEST, Manifest, SCHEMA, _REMEDY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    _check_names(folder / MANIFEST, manifest)
    return manifest


def _check_names(path: Path, manifest: Manifest) -> None:
    """Refuse a manifest that names files outside its folder.

    Raises:
        UserError: If there is such an entry; names it.
    """
    files = [name for one in manifest.artifacts for name in (one.file, one.tiled_by)]
    files += [name for one in manifest.compiled for name in (one.file, one.source)]
    for name in files:
        if name is not None and (name == ".." or Path(name).name != name or "\\" in name):
            raise UserError(
                f"{path}: names '{name}', expected the name of a file beside it; "
                "export the bundle again"
            )


def verify(path: Path, artifact: Artifact) -> None:
    """Check that the file is the one the manifest describes.

    Raises:
        UserError: If its SHA-256 differs.
    """
    if sha256_of(path) != artifact.sha256:
        raise UserError(f"{path.name}: SHA-256 differs from {MANIFEST}; export it again")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's relative paths and contents in order."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_dir():
            continue
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
