"""The files of fixed size of a bundle, in one row for each size.

They are the networks of the files that take any size, so that scores and latencies would repeat
theirs; ``manifest.json`` describes each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.formats import Precision
from runtime.manifest import Manifest


@dataclass(frozen=True)
class FixedSize:
    """The files whose input is fixed at one size.

    Attributes:
        size: Height and width of the input.
        files: Their names.
        max_abs_diff: The largest difference from the source network of the files that run here,
            for each precision, for outputs in [0, 1].
    """

    size: tuple[int, int]
    files: tuple[str, ...]
    max_abs_diff: Mapping[Precision, float]

    @property
    def title(self) -> str:
        """Height and width, for example ``128x128``."""
        return f"{self.size[0]}x{self.size[1]}"

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self.files)

    def described(self) -> str:
        """Return a line for people."""
        differences = ", ".join(f"{name} {one:.1e}" for name, one in self.max_abs_diff.items())
        return f"fixed at {self.title}: {self.count} files, largest difference {differences}"


def fixed_sizes_of(manifest: Manifest) -> tuple[FixedSize, ...]:
    """Return the fixed sizes of a bundle, the smallest first."""
    sizes = {one.fixed_size for one in manifest.artifacts if one.fixed_size is not None}
    found = []
    for size in sorted(sizes):
        files = [one for one in manifest.artifacts if one.fixed_size == size]
        differences: dict[Precision, float] = {}
        for one in files:
            if one.measured.max_abs_diff is not None:
                largest = max(one.measured.max_abs_diff, differences.get(one.precision, 0.0))
                differences[one.precision] = largest
        found.append(FixedSize(size, tuple(one.file for one in files), differences))
    return tuple(found)
