"""Restores pictures with an exported file, on LiteRT and NumPy alone.

    pip install ai-edge-litert numpy pillow
    python restore.py --self-test
    python restore.py photo.png restored.png

Everything that is particular to the file stands in app.json. The self-test restores
golden/input.rgb and compares the result with golden/expected.rgb, which was made where the file was
proven.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

HERE = Path(__file__).parent
Array = NDArray[Any]


class Span(NamedTuple):
    """What a tile reads (start to stop) and keeps along one axis, in input pixels."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Network:
    """The file, opened once; every input is one window of the size in app.json."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.interpreter = Interpreter(model_path=str(HERE / facts["file"]))
        inputs, outputs = (
            self.interpreter.get_input_details(),
            self.interpreter.get_output_details(),
        )
        self.indices = {one["name"]: one["index"] for one in (*inputs, *outputs)}
        shape = [1, *facts["window"], 3]
        self.interpreter.resize_tensor_input(self.indices[facts["input"]["name"]], shape)
        self.interpreter.allocate_tensors()

    def run(self, window: Array, average: Array | None = None) -> Array:
        """Restore a window, height × width × 3, RGB bytes in and out.

        A network that pools gets the average of its features over the whole picture, too.
        """
        self._set(self.facts["input"], window.astype(np.float32) / 255)
        if average is not None:
            self._set(self.facts["pooling"]["pooled"], average[np.newaxis, np.newaxis])
        self.interpreter.invoke()
        # Networks overshoot, so clamp before rounding.
        restored = np.clip(self._get(self.facts["output"]), 0, 1)
        return np.asarray(np.rint(restored * 255), np.uint8)

    def features(self, window: Array) -> Array:
        """Return what a network that pools averages: a vector for every pixel of a window."""
        pooling = self.facts["pooling"]
        self.run(window, np.zeros(pooling["channels"], np.float32))
        return self._get(pooling["features"])

    def _set(self, tensor: dict[str, Any], values: Array) -> None:
        self.interpreter.set_tensor(
            self.indices[tensor["name"]], encoded(values, tensor)[np.newaxis]
        )

    def _get(self, tensor: dict[str, Any]) -> Array:
        return decoded(self.interpreter.get_tensor(self.indices[tensor["name"]])[0], tensor)


def encoded(values: Array, tensor: dict[str, Any]) -> Array:
    """Turn floats into what a tensor holds: themselves, or integers with a zero point."""
    if tensor["dtype"] == "float32":
        return values
    integers = np.rint(values / np.float32(tensor["scale"])) + tensor["zero_point"]
    limits = np.iinfo(tensor["dtype"])
    integers = np.clip(integers, limits.min, limits.max)
    return np.asarray(integers, tensor["dtype"])


def decoded(values: Array, tensor: dict[str, Any]) -> Array:
    """Turn what a tensor holds into floats."""
    values = values.astype(np.float32)
    if tensor["dtype"] == "float32":
        return values
    return np.asarray((values - tensor["zero_point"]) * np.float32(tensor["scale"]))


def spans(extent: int, window: int, halo: int) -> list[Span]:
    """Cover an axis with windows. A halo is cut off at each end but at the picture's edges."""
    found: list[Span] = []
    kept = 0
    while kept < extent:
        start = min(max(0, kept - halo), extent - window)
        stop = start + window
        keep_stop = extent if stop == extent else stop - halo
        found.append(Span(start, stop, kept, keep_stop))
        kept = keep_stop
    return found


def restore(network: Network, picture: Array) -> Array:
    """Restore a picture of any size, height × width × 3, RGB bytes."""
    facts = network.facts
    scale, multiple = facts["scale"], facts["multiple"]
    height, width, _ = picture.shape
    # Continued by reflection up to a multiple that the network takes, and up to a whole window.
    taken = tuple(-(-extent // multiple) * multiple for extent in (height, width))
    rows, columns = map(max, taken, facts["window"])
    whole = np.pad(picture, ((0, rows - height), (0, columns - width), (0, 0)), mode="reflect")
    result = np.empty((scale * rows, scale * columns, 3), np.uint8)
    vertical = spans(rows, facts["window"][0], facts["halo"])
    tiles = [(y, x) for y in vertical for x in spans(columns, facts["window"][1], facts["halo"])]
    average = averaged(network, whole, tiles, taken) if "pooling" in facts else None
    for y, x in tiles:
        restored = network.run(whole[y.start : y.stop, x.start : x.stop], average)
        top, left = scale * (y.keep_start - y.start), scale * (x.keep_start - x.start)
        bottom, right = scale * (y.keep_stop - y.start), scale * (x.keep_stop - x.start)
        result[
            scale * y.keep_start : scale * y.keep_stop,
            scale * x.keep_start : scale * x.keep_stop,
        ] = restored[top:bottom, left:right]
    return result[: scale * height, : scale * width]


def averaged(
    network: Network, whole: Array, tiles: list[tuple[Span, Span]], size: tuple[int, ...]
) -> Array:
    """Average a network's features over a picture: a first pass, in which every pixel counts once.

    Pixels that fill a window beyond ``size``, height and width, do not count.
    """
    total = np.zeros(network.facts["pooling"]["channels"])
    for y, x in tiles:
        features = network.features(whole[y.start : y.stop, x.start : x.stop])
        kept = features[
            y.keep_start - y.start : min(y.keep_stop, size[0]) - y.start,
            x.keep_start - x.start : min(x.keep_stop, size[1]) - x.start,
        ]
        total += kept.sum(axis=(0, 1), dtype=np.float64)
    return np.asarray(total / (size[0] * size[1]), np.float32)


def self_test(network: Network) -> bool:
    """Restore the golden picture and tell whether the result is the expected one."""
    golden, scale = network.facts["golden"], network.facts["scale"]
    height, width = golden["height"], golden["width"]
    picture = np.fromfile(HERE / "golden" / "input.rgb", np.uint8).reshape(height, width, 3)
    expected = np.fromfile(HERE / "golden" / "expected.rgb", np.uint8)
    restored = restore(network, picture).astype(int)
    largest = np.abs(restored - expected.reshape(scale * height, scale * width, 3)).max()
    passed = bool(largest <= golden["tolerance"])
    allowed = f"{golden['tolerance']} of 255 levels allowed"
    print(f"{'passed' if passed else 'FAILED'}: largest difference {largest}, {allowed}")
    return passed


def main(arguments: list[str]) -> int:
    """Run the self-test, or restore a picture file into another."""
    network = Network(json.loads((HERE / "app.json").read_text(encoding="utf-8")))
    if arguments == ["--self-test"]:
        return 0 if self_test(network) else 1
    if len(arguments) != 2:
        print("usage: restore.py --self-test | restore.py PICTURE RESTORED", file=sys.stderr)
        return 2
    from PIL import Image, ImageOps

    source, destination = arguments
    picture = np.asarray(ImageOps.exif_transpose(Image.open(source)).convert("RGB"))
    Image.fromarray(restore(network, picture)).save(destination)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
