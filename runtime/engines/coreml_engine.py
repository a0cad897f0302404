"""Core ML artifacts on macOS, the only system where coremltools can run them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

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
    """A Core ML model (NCHW multi-arrays); enumerated shapes run at their default size."""

    def __init__(self, model: Any, ports: Any) -> None:
        name = f"Core ML (macOS {platform.mac_ver()[0]}, {model.compute_unit.name})"
        # ``predict`` takes and returns float32, whatever the file's type.
        inputs = [TensorInfo(one.name, "NCHW", "float32", _extents(one)) for one in ports.input]
        # Core ML does not state the output's size when the input's is free.
        free = (None, None, None, None)
        outputs = [TensorInfo(one.name, "NCHW", "float32", free) for one in ports.output]
        super().__init__(name, tuple(inputs), tuple(outputs))
        self._model = model
        self._feeds: dict[str, NDArray[Any]] = {}
        self._results: dict[str, NDArray[Any]] = {}

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Keep the values of an input for the next ``invoke``."""
        self._feeds[name] = array

    def invoke(self) -> None:
        """Run the network."""
        self._results = self._model.predict(self._feeds)

    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output; every ``invoke`` makes new arrays."""
        return self._results[name]

    def close(self) -> None:
        """Release the model and its tensors."""
        self._model = None
        self._feeds, self._results = {}, {}


def _extents(port: Any) -> tuple[int | None, ...]:
    array = port.type.multiArrayType
    if array.WhichOneof("ShapeFlexibility") == "shapeRange":
        return tuple(
            size.lowerBound if size.lowerBound == size.upperBound else None
            for size in array.shapeRange.sizeRanges
        )
    return tuple(int(extent) for extent in array.shape)
