"""Core ML artifacts on macOS, the only system where coremltools can run them."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import TensorInfo


def open_engine(path: Path, threads: int) -> Engine:
    """Load an ``.mlpackage``; Core ML decides itself how many threads it uses.

    Raises:
        UserError: If it cannot be read or coremltools is missing.
    """
    try:
        # The only export library that the runtime needs, and only for this format.
        import coremltools
    except ImportError as error:
        raise UserError("coremltools is not installed; run pip install coremltools") from error
    try:
        model = coremltools.models.MLModel(str(path))
        ports = model.get_spec().description
    except Exception as error:  # coremltools raises bare Exceptions for damaged packages
        raise UserError(
            f"{path}: Core ML cannot read it ({first_line(error)}); export it again"
        ) from error
    return CoreMLEngine(model, ports)


class CoreMLEngine(Engine):
    """A Core ML model; enumerated shapes run at their default size.

    Its tensors are multi-arrays, NCHW, or images, which are bytes of 1 × height × width × 3 here.
    """

    def __init__(self, model: Any, ports: Any) -> None:
        name = f"Core ML (macOS {platform.mac_ver()[0]}, {model.compute_unit.name})"
        inputs = tuple(map(_tensor, ports.input))
        # Core ML does not state the output's size when the input's is free.
        outputs = tuple(replace(_tensor(one), shape=(None,) * 4) for one in ports.output)
        super().__init__(name, inputs, outputs)
        self._images = {one.name for one in (*inputs, *outputs) if one.dtype == "uint8"}
        self._model = model
        self._feeds: dict[str, Any] = {}
        self._results: dict[str, Any] = {}

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Keep the values of an input for the next ``invoke``."""
        self._feeds[name] = Image.fromarray(array[0]) if name in self._images else array

    def invoke(self) -> None:
        """Run the network."""
        self._results = self._model.predict(self._feeds)

    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output; every ``invoke`` makes new arrays."""
        result = self._results[name]
        if name in self._images:  # Core ML's images have a fourth channel.
            return np.asarray(result.convert("RGB"))[np.newaxis]
        return np.asarray(result)

    def close(self) -> None:
        """Release the model and its tensors."""
        self._model = None
        self._feeds, self._results = {}, {}


def _tensor(port: Any) -> TensorInfo:
    if port.type.WhichOneof("Type") == "imageType":
        shape = (1, *_sides(port.type.imageType), 3)
        return TensorInfo(port.name, "NHWC", "uint8", shape, scale=1 / 255, zero_point=0)
    # ``predict`` takes and returns float32, whatever the file's type.
    return TensorInfo(port.name, "NCHW", "float32", _extents(port))


def _sides(image: Any) -> tuple[int | None, int | None]:
    if image.WhichOneof("SizeFlexibility") == "imageSizeRange":
        return None, None
    return int(image.height), int(image.width)


def _extents(port: Any) -> tuple[int | None, ...]:
    array = port.type.multiArrayType
    if array.WhichOneof("ShapeFlexibility") == "shapeRange":
        return tuple(
            size.lowerBound if size.lowerBound == size.upperBound else None
            for size in array.shapeRange.sizeRanges
        )
    return tuple(int(extent) for extent in array.shape)
