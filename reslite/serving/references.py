"""What a file must return in the browser: the golden pair of the bundle, or one made here.

``reslite ship --app js`` writes a golden pair for the file that its app opens. For other files the
pair is made on demand by the file itself on LiteRT or ONNX Runtime.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from reslite.apps.golden import golden_here, tolerance_of
from reslite.apps.writing import APPS
from runtime.manifest import Artifact
from training.data.pictures import Picture

_SIDES = (48, 64)


def reference_json(folder: Path, artifact: Artifact, window: tuple[int, int]) -> bytes:
    """Return the golden pair of a file as JSON; pictures are RGB bytes in rows, in base64.

    Args:
        folder: The bundle's folder.
        artifact: A file that runs here.
        window: Height and width of the page's tiles.
    """
    carried = _carried(folder, artifact)
    if carried is not None:
        return carried
    golden = golden_here(artifact, folder, window, _picture())
    height, width, _ = golden.picture.shape
    pair = (golden.picture.tobytes(), golden.expected.tobytes())
    return _json(height, width, golden.tolerance, "made here", *pair)


def _carried(folder: Path, artifact: Artifact) -> bytes | None:
    """Return the golden pair of an app in the bundle that opens this very file, if there is one."""
    for path in sorted((folder / APPS).glob("*/app.json")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            golden = facts["golden"]
            height, width = int(golden["height"]), int(golden["width"])
            pair = [(path.parent / "golden" / f"{name}.rgb").read_bytes() for name in _PAIR]
            scale = int(facts["scale"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an app that somebody changed
        sizes = [3 * height * width, 3 * height * width * scale**2]
        if facts.get("sha256") == artifact.sha256 and [len(one) for one in pair] == sizes:
            return _json(height, width, tolerance_of(artifact), "in the bundle", *pair)
    return None


_PAIR = ("input", "expected")


def _json(
    height: int, width: int, tolerance: int, origin: str, picture: bytes, expected: bytes
) -> bytes:
    content = {
        "height": height,
        "width": width,
        "tolerance": tolerance,
        "origin": origin,
        "input": base64.b64encode(picture).decode(),
        "expected": base64.b64encode(expected).decode(),
    }
    return json.dumps(content).encode()


def _picture() -> Picture:
    """Return a picture of ramps and noise, always the same."""
    rows, columns = np.mgrid[: _SIDES[0], : _SIDES[1]]
    ramps = np.stack([4 * rows, 3 * columns, 2 * (rows + columns)], axis=2)
    noise = np.random.default_rng(0).integers(0, 40, ramps.shape)
    return np.clip(ramps + noise, 0, 255).astype(np.uint8)
