"""The gate: the snapshot of a bundle compared with its baseline, a committed snapshot.

A figure that became better deviates as well: docs and users rely on the baseline, which changes
only by ``reslite gate --update``. Of all figures the mean change of single restored pixels is the
most sensitive to a slightly wrong weight or scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.snapshots import Entry, Quality, Snapshot, manifest_of, present
from export.parity import ParityError
from runtime.errors import UserError
from runtime.formats import FORMATS, Precision
from runtime.manifest import sha256_of

PSNR_TOLERANCE = 0.02
CLEAN_TOLERANCE = 0.1
"""In dB: where hardly anything changed, a few values that round to the next level count."""
COLOUR_TOLERANCE: Mapping[Precision, float] = {"float32": 0.02, "float16": 0.5, "int8": 1.01}
"""Tolerance of the largest difference in saturated colours, in levels."""
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


@dataclass(frozen=True)
class Verdict:
    """What the gate says about a bundle.

    Attributes:
        found: What was measured.
        deviations: What differs from the baseline, or from the manifest; empty if nothing.
        accept: The command that accepts what was found as the new baseline; None if files failed a
            check of their own.
        updated: The baseline that was written; None where one was compared with.
    """

    found: Snapshot
    deviations: tuple[Deviation, ...]
    accept: str | None
    updated: Path | None = None

    @property
    def title(self) -> str:
        """Model and scale, for example ``carn-m ×4``."""
        return f"{self.found.model} ×{self.found.scale}"


def unproven(error: ParityError) -> Deviation:
    """Return the deviation of a file whose output differs too much from its reference's."""
    expected, found = f"≤{error.allowed:.2e}", f"{error.difference:.2e}"
    return Deviation(error.file, "difference from reference", expected, found, "exact")


def damaged(folder: Path) -> list[Deviation]:
    """Return a deviation for each file of a bundle whose SHA-256 differs from the manifest's."""
    manifest = manifest_of(folder)
    hashes = [(one, sha256_of(folder / one.file)) for one in present(manifest, folder)]
    return [
        Deviation(one.file, "SHA-256", _short(one.sha256), _short(found), "exact")
        for one, found in hashes
        if found != one.sha256
    ]


def compare(found: Snapshot, baseline: Snapshot) -> list[Deviation]:
    """Return every figure of ``found`` that deviates from the baseline, in either direction.

    Raises:
        UserError: If the snapshots are of different models, scales or pictures, or their largest
            differences are from different references.
    """
    if unlike := _unlike(found, baseline):
        raise UserError(
            f"{unlike}; compare like with like, or make the baseline anew by adding --update to "
            "this command"
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


def _unlike(found: Snapshot, baseline: Snapshot) -> str | None:
    """Say why two snapshots cannot be compared; None if they can."""
    for quantity in ("model", "scale"):
        ours, theirs = getattr(found, quantity), getattr(baseline, quantity)
        if ours != theirs:
            return f"the baseline is of {quantity} {theirs}, found {ours}"
    if found.pictures != baseline.pictures:
        lacking = [name for name in baseline.pictures if name not in found.pictures]
        added = [name for name in found.pictures if name not in baseline.pictures]
        lists = (("lacking", lacking), ("additional", added))
        shown = [f"{kind} are {_shortened(names)}" for kind, names in lists if names]
        return (
            f"the baseline is of pictures other than the {len(found.pictures)} found: "
            f"{' and '.join(shown) or 'their order differs'}"
        )
    if found.pictures_sha256 != baseline.pictures_sha256:
        return "the baseline is of pictures of the same names that show something else"
    if found.compared_with != baseline.compared_with:
        return (
            f"the baseline is of largest differences from {baseline.compared_with}, found "
            f"{found.compared_with} (--weights names the weights of the network)"
        )
    return None


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


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
    figures: tuple[tuple[str, float, float, float, str], ...] = (
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
        (
            "difference in saturated colours",
            expected.colours,
            found.colours,
            COLOUR_TOLERANCE[precision],
            ".2f",
        ),
    )
    if expected.clean is not None:  # only networks that keep the size have it
        clean = found.clean if found.clean is not None else math.nan
        figures += (("PSNR dB of clean pictures", expected.clean, clean, CLEAN_TOLERANCE, ".3f"),)
    # Written so that a NaN is outside any tolerance.
    return [
        Deviation(file, quantity, format(ours, form), format(theirs, form), f"±{tolerance:.3g}")
        for quantity, ours, theirs, tolerance, form in figures
        if not abs(theirs - ours) <= tolerance
    ]
