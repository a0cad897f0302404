"""What apps know of their file: the facts that app.json states, from the manifest alone."""

from __future__ import annotations

from typing import Any

from runtime.errors import UserError
from runtime.manifest import Artifact, Manifest, TensorInfo
from runtime.sides import Sides

_SIDE = 128


def usual_window(halo: int, sides: Sides) -> tuple[int, int]:
    """Return the tile of a file that takes any size: at least half of each side is kept.

    Args:
        halo: Pixels around a tile that its result depends on.
        sides: Heights and widths that the network takes.
    """
    side = _SIDE
    while side < 4 * halo:
        side *= 2
    side = sides.fitting(side)
    return side, side


def facts_of(manifest: Manifest, artifact: Artifact, window: tuple[int, int]) -> dict[str, Any]:
    """Return all that an app needs to restore with a file in tiles.

    A file that was cut at its global pooling has two further tensors, ``pooling``.

    Args:
        manifest: The bundle.
        artifact: The file.
        window: Height and width of the tiles.

    Raises:
        UserError: If the network restores no tiles.
    """
    if manifest.halo is None:
        raise UserError(f"{artifact.file}: its network cannot restore in tiles")
    facts = {
        "model": manifest.model,
        "scale": manifest.scale,
        "file": artifact.file,
        "sha256": artifact.sha256,
        "window": window,
        "halo": -(-manifest.halo // manifest.multiple) * manifest.multiple,
        "multiple": manifest.multiple,
        "input": _tensor(artifact.input),
        "output": _tensor(artifact.output),
    }
    if artifact.pooling is not None:
        facts["pooling"] = {
            "channels": artifact.pooling.pooled.channels,
            "features": _tensor(artifact.pooling.features),
            "pooled": _tensor(artifact.pooling.pooled),
        }
    return facts


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": tensor.name,
        "layout": tensor.layout,
        "dtype": tensor.dtype,
    }
    if tensor.scale is not None:
        facts |= {"scale": tensor.scale, "zero_point": tensor.zero_point}
    return facts
