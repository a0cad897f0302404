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
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]
        self.interpreter.resize_tensor_input(self.input, [1, *facts["window"], 3])
        self.interpreter.allocate_tensors()

    def run(self, window: Array) -> Array:
        """Restore a window, height × width × 3, RGB bytes in and out."""
        self.interpreter.set_tensor(self.input, packed(window, self.facts["input"])[np.newaxis])
        self.interpreter.invoke()
        return unpacked(self.interpreter.get_tensor(self.output)[0], self.facts["output"])


def packed(pixels: Array, tensor: dict[str, Any]) -> Array:
    """Turn bytes into what the input takes: floats in [0, 1], or integers with a zero point."""
    values = pixels.astype(np.float32) / 255
    if tensor["dtype"] == "float32":
        return values
    integers = np.rint(values / np.float32(tensor["scale"])) + tensor["zero_point"]
    limits = np.iinfo(tensor["dtype"])
    integers = np.clip(integers, limits.min, limits.max)
    return np.asarray(integers, tensor["dtype"])


def unpacked(values: Array, tensor: dict[str, Any]) -> Array:
    """Turn what the output gives into bytes; networks overshoot, so clamp before rounding."""
    values = values.astype(np.float32)
    if tensor["dtype"] != "float32":
        values = (values - tensor["zero_point"]) * np.float32(tensor["scale"])
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)


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
    # Continued by reflection up to a whole window, or up to a multiple that the network takes.
    rows, columns = (
        max(window, -(-extent // multiple) * multiple)
        for extent, window in zip((height, width), facts["window"], strict=True)
    )
    whole = np.pad(picture, ((0, rows - height), (0, columns - width), (0, 0)), mode="reflect")
    result = np.empty((scale * rows, scale * columns, 3), np.uint8)
    for y in spans(rows, facts["window"][0], facts["halo"]):
        for x in spans(columns, facts["window"][1], facts["halo"]):
            restored = network.run(whole[y.start : y.stop, x.start : x.stop])
            top, left = scale * (y.keep_start - y.start), scale * (x.keep_start - x.start)
            bottom, right = scale * (y.keep_stop - y.start), scale * (x.keep_stop - x.start)
            result[
                scale * y.keep_start : scale * y.keep_stop,
                scale * x.keep_start : scale * x.keep_stop,
            ] = restored[top:bottom, left:right]
    return result[: scale * height, : scale * width]


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
