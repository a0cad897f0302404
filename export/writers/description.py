"""What every file says of itself: one list, which each writer puts where its format keeps it.

ONNX has ``metadata_props``, TFLite metadata entries, Core ML and Core AI fields of their creator.
Nothing depends on when or where a file was written, so that equal networks give equal bytes.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache

from runtime.sides import ANY_SIDES, Sides

AUTHOR = "reslite"

RANGE = "RGB in [0, 1]; the restored picture may overshoot, so clamp it"


@dataclass(frozen=True)
class Description:
    """What is known of a network when its files are written; None where it is not.

    Attributes:
        model: Name of the network.
        scale: Upscaling factor.
        halo: Input pixels around a tile that the tile's output depends on; None where tiles cannot
            be restored.
        sides: The heights and widths it takes.
        source_sha256: SHA-256 of the file of its weights.
        licence: The licence of its weights.
    """

    model: str | None = None
    scale: int | None = None
    halo: int | None = None
    sides: Sides = ANY_SIDES
    source_sha256: str | None = None
    licence: str | None = None

    def facts(self) -> dict[str, str]:
        """Return what is known, in the words that files hold, by short names."""
        multiple, least = self.sides.multiple, self.sides.minimum
        told = {
            "model": self.model,
            "scale": self.scale,
            "halo": self.halo,
            "tiles": self._tile_rule(),
            "sides": f"multiples of {multiple}, {least} or more" if multiple * least > 1 else None,
            "range": RANGE,
            "source_sha256": self.source_sha256,
            "licence": self.licence,
            "reslite": version(),
        }
        return {name: str(fact) for name, fact in told.items() if fact is not None}

    def _tile_rule(self) -> str | None:
        if self.model is None:
            return None
        if self.halo is None:
            return "none: it takes whole pictures"
        return (
            f"read {self.halo} pixels beside a tile where the picture has them, and cut their "
            "results off: what remains is exact"
        )


NOTHING_KNOWN = Description()
"""Of a graph that is written by itself."""


@cache
def version() -> str:
    """Return the version of reslite, for the fields that formats have for it."""
    return importlib.metadata.version("reslite")
