"""The gate: every artifact of a bundle compared with committed figures, the baseline.

``snapshot`` measures a bundle, ``compare`` compares it with its baseline, ``deviation_table``
prints the differences. A figure that became better fails as well: docs and users rely on the
baseline, which changes only by ``reslite gate --update``.

PSNR, SSIM and the largest difference from the source barely react to a slightly wrong weight or
scale of a quantized network; single restored pixels do, so the baseline stores some. Their mean
change is the most sensitive of the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import runtime
from benchmarks.accuracy import max_abs_diff, score, session_restorer, whole_restorer
from benchmarks.pairs import Pair
from benchmarks.report.tables import text_table
from export.parity import ParityError, Restore
from runtime.errors import UserError
from runtime.formats import FORMATS, Format, Precision
from runtime.manifest import (
    Artifact,
    Manifest,
    read_manifest,
    sha256_of,
    size_of,
)
from runtime.records import read_record, write_record
from runtime.session import Session
from training.catalogue import file_stem
from training.data.pictures import Picture
from training.tasks import Task

BASELINES = Path(__file__).parent / "baselines"
"""One file for each gated model and scale."""

SCHEMA = 1

UPDATE_COMMAND = "reslite gate --update"

PSNR_TOLERANCE = 0.02
SSIM_TOLERANCE = 0.0005
SIZE_TOLERANCE = 0.01
"""Fraction of the expected bytes: versions of the writing libraries differ in names and padding."""

DIFFERENCE_TOLERANCE: Mapping[Precision, float] = {
    "float32": 1e-5,
    "float16": 1e-3,
    "int8": 2.01 / 255,
}
"""Tolerance of the largest difference from the source. Other machines round float sums in another
order, which changes this extreme value by up to the allowed difference (float) or two quanta
(int8)."""

CHANGE_TOLERANCE: Mapping[Precision, float] = {"float32": 0.002, "float16": 0.05, "int8": 0.03}
"""Tolerance of the mean change of the sampled pixels, in quanta of 1/255. Integer files restore the
same pixels on every machine with the same kernels: 3 in 100 may be one quantum off."""

GATE_PICTURES = "crops of scikit-image's pictures"
_SAMPLES = 64
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
        samples: Restored pixels at fixed places, in quanta of 1/255.
    """

    psnr: float
    ssim: float
    max_abs_diff: float
    samples: tuple[float, ...]


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
        artifacts: The entries, by file name.
    """

    model: str
    scale: int
    weights_sha256: str
    pictures: tuple[str, ...]
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
        remedy = f"restore it or make it anew with '{UPDATE_COMMAND}'"
        return read_record(path, Snapshot, SCHEMA, remedy)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no baseline; make one with '{UPDATE_COMMAND}'") from error


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


def snapshot(
    folder: Path, source: Restore, pairs: Sequence[Pair], threads: int | None = None
) -> Snapshot:
    """Measure every artifact of a bundle.

    Args:
        folder: The bundle, with its manifest.
        source: The network that the bundle was made from (see ``export.parity.restore_with``).
        pairs: The pictures (see ``gate_pictures``).
        threads: CPU threads; None for every available core.

    Raises:
        UserError: If the folder holds no bundle, or an artifact cannot be opened.
    """
    manifest = manifest_of(folder)
    entries = []
    for artifact in _present(manifest, folder):
        path = folder / artifact.file
        quality = None
        if FORMATS[artifact.format].runs_here():
            with runtime.open(path, verify=False, threads=threads) as session:
                quality = _quality(session, source, pairs)
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
        pictures=tuple(pair.name for pair in pairs),
        artifacts=tuple(entries),
    )


@dataclass(frozen=True)
class Deviation:
    """A figure that differs from the baseline, ready to print.

    Attributes:
        artifact: File name.
        quantity: Name of the figure.
        expected: Value in the baseline.
        found: Measured value.
        tolerance: Accepted difference.
    """

    artifact: str
    quantity: str
    expected: str
    found: str
    tolerance: str


def unproven(error: ParityError) -> Deviation:
    """Return the deviation of a file whose output differs too much from its reference's."""
    expected, found = f"≤{error.allowed:.2e}", f"{error.difference:.2e}"
    return Deviation(error.file, "difference from reference", expected, found, "exact")


def damaged(folder: Path) -> list[Deviation]:
    """Return a deviation for each file of a bundle whose SHA-256 differs from the manifest's."""
    manifest = manifest_of(folder)
    hashes = [(one, sha256_of(folder / one.file)) for one in _present(manifest, folder)]
    return [
        Deviation(one.file, "SHA-256", _short(one.sha256), _short(found), "exact")
        for one, found in hashes
        if found != one.sha256
    ]


def compare(found: Snapshot, baseline: Snapshot) -> list[Deviation]:
    """Return every figure of ``found`` that deviates from the baseline, in either direction.

    Raises:
        UserError: If the snapshots are of different models, scales or pictures.
    """
    for quantity in ("model", "scale", "pictures"):
        ours, theirs = getattr(found, quantity), getattr(baseline, quantity)
        if ours != theirs:
            raise UserError(
                f"the baseline is of {quantity} {theirs}, found {ours}; compare like with like or "
                f"run '{UPDATE_COMMAND}'"
            )
    deviations = []
    if found.weights_sha256 != baseline.weights_sha256:
        expected, ours_now = baseline.weights_sha256[:12], found.weights_sha256[:12]
        deviations.append(Deviation(found.model, "weights SHA-256", expected, ours_now, "exact"))
    ours = {entry.file: entry for entry in found.artifacts}
    theirs = {entry.file: entry for entry in baseline.artifacts}
    for file in sorted({*ours, *theirs}):
        if file not in ours:
            deviations.append(Deviation(file, "artifact", "present", "missing", "exact"))
        elif file not in theirs:
            deviations.append(Deviation(file, "artifact", "absent", "additional", "exact"))
        else:
            deviations += _compare_entries(ours[file], theirs[file])
    return deviations


def deviation_table(deviations: Sequence[Deviation], options: str = "") -> str:
    """Return the deviations as a table, and the command that accepts them, with its ``options``."""
    rows = [dataclasses.astuple(deviation) for deviation in deviations]
    header = ("artifact", "quantity", "expected", "found", "tolerance")
    return (
        f"{text_table(header, rows)}\n"
        f"If this is intended, accept it as the new baseline: {UPDATE_COMMAND}{options}"
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


def _present(manifest: Manifest, folder: Path) -> list[Artifact]:
    """Return the artifacts whose files exist."""
    return [artifact for artifact in manifest.artifacts if (folder / artifact.file).exists()]


def _quality(session: Session, source: Restore, pairs: Sequence[Pair]) -> Quality:
    restore = session_restorer(session)
    scores = score(restore, pairs)
    if scores.ssim is None:
        raise UserError("the gate's pictures are too small for SSIM; use larger ones")
    return Quality(
        psnr=round(scores.psnr, 5),
        ssim=round(scores.ssim, 7),
        max_abs_diff=max_abs_diff(session, source, [pair.low for pair in pairs]),
        samples=tuple(value for pair in pairs for value in _sampled(session, pair.low)),
    )


def _sampled(session: Session, picture: Picture) -> list[float]:
    """Return restored values at places spread evenly over the picture and its channels."""
    size = session.fixed_size or picture.shape[:2]
    image = picture[: size[0], : size[1]].astype(np.float32) / np.float32(255)
    restored = whole_restorer(session)(image)
    places = np.linspace(0, restored.size - 1, _SAMPLES).astype(int)
    return [round(float(value) * 255, 3) for value in restored.ravel()[places]]


def _compare_entries(found: Entry, expected: Entry) -> list[Deviation]:
    file = found.file
    deviations = []
    if abs(found.bytes - expected.bytes) > SIZE_TOLERANCE * expected.bytes:
        deviations.append(
            Deviation(
                file, "bytes", str(expected.bytes), str(found.bytes), f"±{SIZE_TOLERANCE:.0%}"
            )
        )
    exact = {
        "format": (expected.format, found.format),
        "precision": (expected.precision, found.precision),
        "MultAdds": (expected.multadds, found.multadds),
        "scales SHA-256": (_short(expected.scales_sha256), _short(found.scales_sha256)),
        **{
            f"operator {name}": (expected.operators.get(name, 0), found.operators.get(name, 0))
            for name in sorted({*expected.operators, *found.operators})
        },
    }
    deviations += [
        Deviation(file, quantity, str(ours), str(theirs), "exact")
        for quantity, (ours, theirs) in exact.items()
        if ours != theirs
    ]
    if found.quality is not None and expected.quality is not None:
        deviations += _compare_quality(file, found.precision, found.quality, expected.quality)
    elif not FORMATS[found.format].systems and found.quality != expected.quality:
        before, now = ("measured" if one.quality else "none" for one in (expected, found))
        deviations.append(Deviation(file, "quality", before, now, "exact"))
    return deviations


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else sha256[:12]


def _compare_quality(
    file: str, precision: Precision, found: Quality, expected: Quality
) -> list[Deviation]:
    figures = (
        ("PSNR dB", expected.psnr, found.psnr, PSNR_TOLERANCE, ".3f"),
        ("SSIM", expected.ssim, found.ssim, SSIM_TOLERANCE, ".5f"),
        (
            "difference from source",
            expected.max_abs_diff,
            found.max_abs_diff,
            DIFFERENCE_TOLERANCE[precision],
            ".2e",
        ),
        (
            "mean change of restored pixels",
            0.0,
            float(np.abs(np.subtract(found.samples, expected.samples)).mean()),
            CHANGE_TOLERANCE[precision],
            ".3f",
        ),
    )
    # Written so that a NaN is outside any tolerance.
    return [
        Deviation(file, quantity, format(ours, form), format(theirs, form), f"±{tolerance:.3g}")
        for quantity, ours, theirs, tolerance, form in figures
        if not abs(theirs - ours) <= tolerance
    ]
