"""Snapshots: what the gate measures of a bundle, and the files that hold them, the baselines.

PSNR, SSIM and the largest difference from the source barely react to a slightly wrong weight or
scale of a quantized network; single restored pixels do, so a snapshot holds some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import runtime
from benchmarks.accuracy import Restore as RestorePixels
from benchmarks.accuracy import max_abs_diff, score, session_restorer, whole_restorer
from benchmarks.pairs import Pair, Pairs, fingerprint
from export.colours import colour_pictures
from export.parity import Restore, remembered
from runtime.errors import UserError
from runtime.formats import FORMATS, Format, Precision
from runtime.manifest import Artifact, Manifest, read_manifest, sha256_of, size_of
from runtime.records import read_record, write_record
from runtime.session import Session
from runtime.tiling import restore_tiled
from training.catalogue import file_stem
from training.data.pictures import Picture
from training.tasks import Task

BASELINES = Path(__file__).parent / "baselines"
"""One file for each gated model and scale."""

SCHEMA = 2
"""Version of the file. In version 1 no saturated colours were among the samples."""

UPDATE_COMMAND = "reslite gate --update"

NETWORK = "the network"
"""``Snapshot.compared_with`` where the source is the network with its weights, not a file."""

_REMEDY = "restore it, or make it anew by adding --update to this command"

GATE_PICTURES = "crops of scikit-image's pictures"
_SAMPLES = 64
# Equal pictures have no finite PSNR, which JSON could hold; one level in one value is 98.6 dB.
_MOST_PSNR = 100.0
# Side in pixels of the part of a degraded picture that is restored in one piece.
_WHOLE = 256
# Left and top of crops of 192 × 192, a multiple of the scales 2, 3 and 4.
_CROP = 192
_CROPS = (
    ("astronaut", 150, 0),
    ("astronaut", 0, 300),
    ("coffee", 200, 100),
    ("chelsea", 100, 60),
)


@dataclass(frozen=True)
class Quality:
    """The quality of an artifact on the gate's pictures.

    Attributes:
        psnr: Mean PSNR in dB.
        ssim: Mean SSIM.
        max_abs_diff: Largest difference from the source network, for outputs in [0, 1].
        samples: Restored pixels at fixed places, saturated colours among them, in quanta of 1/255.
        colours: Largest difference from the source in saturated colours (``export.colours``), in
            levels of 255.
        clean: For networks that keep the size: PSNR in dB of the originals when they are restored
            themselves, of the worst one (at most 100 dB). None for networks that enlarge.
    """

    psnr: float
    ssim: float
    max_abs_diff: float
    samples: tuple[float, ...]
    colours: float
    clean: float | None = None


@dataclass(frozen=True)
class Entry:
    """The figures of one artifact.

    Attributes:
        file: File name of the artifact.
        format: ``onnx``, ``tflite`` or ``coreml``.
        precision: ``float32``, ``float16`` or ``int8``.
        bytes: Size.
        multadds: MultAdds of its network at a 1280 × 720 output.
        operators: How often each operator occurs.
        quality: Quality on the gate's pictures; None where the format cannot run.
        scales_sha256: SHA-256 of the table of scales of an int8 artifact.
    """

    file: str
    format: Format
    precision: Precision
    bytes: int
    multadds: int
    operators: dict[str, int]
    quality: Quality | None
    scales_sha256: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The figures of a bundle.

    Attributes:
        model: Model name.
        scale: Upscaling factor.
        weights_sha256: SHA-256 of the trained weights.
        pictures: Names of the pictures that the quality was measured on.
        pictures_sha256: SHA-256 of their contents (``benchmarks.pairs.fingerprint``).
        compared_with: What the largest differences are from: ``NETWORK``, or the name of a file.
        artifacts: The entries, by file name.
    """

    model: str
    scale: int
    weights_sha256: str
    pictures: tuple[str, ...]
    pictures_sha256: str
    compared_with: str
    artifacts: tuple[Entry, ...]

    def write(self, path: Path) -> None:
        """Write the snapshot as a baseline."""
        write_record(path, self, SCHEMA)


def baseline_path(model: str, scale: int) -> Path:
    """Return the path of a model's baseline, whether or not the file exists."""
    return BASELINES / f"{file_stem(model, scale)}.json"


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot written by ``Snapshot.write``.

    Raises:
        UserError: If the file is missing, damaged or of another schema version.
    """
    try:
        return read_record(path, Snapshot, SCHEMA, _REMEDY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path}: no baseline; make one by adding --update to this command"
        ) from error


def gate_pictures(task: Task, scale: int) -> list[Pair]:
    """Return the gate's pictures: degraded crops of pictures that ship with scikit-image.

    Raises:
        UserError: If scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise UserError(
            "the gate's pictures ship with scikit-image; run pip install 'reslite[demo]'"
        ) from error
    pairs = []
    for name, left, top in _CROPS:
        picture: Picture = getattr(data, name)()
        crop = picture[top : top + _CROP, left : left + _CROP]
        pairs.append(Pair.degraded(f"{name} {left},{top}", crop, task, scale))
    return pairs


@dataclass(frozen=True)
class Reference:
    """What the files of a bundle are compared with.

    Attributes:
        name: ``NETWORK``, or the name of a file.
        restore: Restores a picture.
    """

    name: str
    restore: Restore


@contextmanager
def float32_reference(folder: Path, manifest: Manifest) -> Iterator[Reference]:
    """Open a float32 file of a bundle as the reference, for bundles without their weights.

    Yields:
        The first of the manifest that runs here, takes any size and is as the manifest says.

    Raises:
        UserError: If there is none.
    """
    for one in present(manifest, folder):
        whole = one.precision == "float32" and one.pooling is None
        if whole and FORMATS[one.format].runs_here():
            with runtime.open(folder / one.file) as session:
                if session.fixed_size is None:
                    yield Reference(one.file, whole_restorer(session))
                    return
    raise UserError(
        f"{folder}: holds no float32 file for any size that runs here, to compare the others with; "
        "name the weights that the bundle was made from with --weights"
    )


def snapshot(
    folder: Path, reference: Reference, pairs: Pairs, threads: int | None = None
) -> Snapshot:
    """Measure every artifact of a bundle.

    A file whose SHA-256 is not the manifest's is not opened and has no quality.

    Args:
        folder: The bundle, with its manifest.
        reference: The network that the bundle was made from, or a file of the bundle.
        pairs: The pictures, read into memory (see ``gate_pictures``).
        threads: CPU threads; None for every available core.

    Raises:
        UserError: If the folder holds no bundle, or an artifact cannot be opened.
    """
    manifest = manifest_of(folder)
    pictures, source = list(pairs), remembered(reference.restore)
    entries = []
    for artifact in present(manifest, folder):
        path = folder / artifact.file
        quality = None
        if FORMATS[artifact.format].runs_here() and sha256_of(path) == artifact.sha256:
            with runtime.open(path, verify=False, threads=threads) as session:
                quality = _quality(session, source, pictures)
        entries.append(
            Entry(
                file=artifact.file,
                format=artifact.format,
                precision=artifact.precision,
                bytes=size_of(path),
                multadds=artifact.multadds,
                operators=artifact.operators,
                quality=quality,
                scales_sha256=artifact.scales_sha256,
            )
        )
    return Snapshot(
        model=manifest.model,
        scale=manifest.scale,
        weights_sha256=manifest.weights_sha256,
        pictures=tuple(pair.name for pair in pictures),
        pictures_sha256=fingerprint(pictures),
        compared_with=reference.name,
        artifacts=tuple(entries),
    )


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        UserError: If the folder holds none.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder}: holds no manifest.json; 'reslite ship' makes a bundle")
    return manifest


def present(manifest: Manifest, folder: Path) -> list[Artifact]:
    """Return the artifacts whose files exist."""
    return [artifact for artifact in manifest.artifacts if (folder / artifact.file).exists()]


def _quality(session: Session, source: Restore, pairs: Sequence[Pair]) -> Quality:
    restore = session_restorer(session)
    # Taken in one piece, so that the halo of no tile hides a difference.
    corners = [pair.low[:_WHOLE, :_WHOLE] for pair in pairs]
    colours = colour_pictures(session.fixed_size)
    scores = score(restore, pairs, progress=True)
    if scores.ssim is None:
        raise UserError("the gate's pictures are too small for SSIM; use larger ones")
    return Quality(
        psnr=round(scores.psnr, 5),
        ssim=round(scores.ssim, 7),
        max_abs_diff=max_abs_diff(session, source, corners),
        samples=tuple(value for one in [*corners, *colours] for value in _sampled(session, one)),
        clean=_clean_psnr(restore, [pair for pair in pairs if pair.scale == 1]),
        colours=round(255 * max_abs_diff(session, source, colours), 3),
    )


def _clean_psnr(restore: RestorePixels, pairs: Sequence[Pair]) -> float | None:
    """Return the PSNR of the original that a restorer spoils most; None without pairs."""
    found = [pair.task.scoring.psnr(restore(pair.high), pair.high, pair.scale) for pair in pairs]
    return round(min(*found, _MOST_PSNR), 5) if found else None


def _sampled(session: Session, picture: Picture) -> list[float]:
    """Return restored values at places spread evenly over the picture and its channels."""
    size = session.fixed_size or picture.shape[:2]
    image = picture[: size[0], : size[1]].astype(np.float32) / np.float32(255)
    fits = session.fixed_size in (None, image.shape[:2])
    restored = whole_restorer(session)(image) if fits else restore_tiled(session, image)
    places = np.linspace(0, restored.size - 1, _SAMPLES).astype(int)
    return [round(float(value) * 255, 3) for value in restored.ravel()[places]]
