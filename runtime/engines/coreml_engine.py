"""Core ML artifacts on macOS, the only system where coremltools can run them."""

from __future__ import annotations

import importlib
import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError, first_line
from runtime.sessions import (
    Description,
    FloatPicture,
    Session,
    check_picture_tensors,
    from_planes,
    pictures_of,
    to_planes,
)


class CoreMLSession(Session):
    """An ``.mlpackage`` (NCHW multi-arrays); enumerated shapes run at their default size."""

    def __init__(self, path: Path, description: Description | None) -> None:
        coremltools = _coremltools()
        try:
            self._model = coremltools.models.MLModel(str(path))
            ports = self._model.get_spec().description
        except Exception as error:  # coremltools raises bare Exceptions for damaged packages
            raise UserError(
                f"{path}: Core ML cannot read it ({first_line(error)}); export it again"
            ) from error
        inputs = pictures_of(ports.input, description)
        outputs = pictures_of(ports.output, description)
        fixed_size = check_picture_tensors(
            path.name,
            "NCHW",
            [_extents(one.type.multiArrayType) for one in inputs],
            [[None] * 4 for _ in outputs],  # a free size leaves the output's unsaid
        )
        self._input, self._output = inputs[0].name, outputs[0].name
        self._feeds: dict[str, NDArray[Any]] = {}
        self._restored: dict[str, NDArray[Any]] = {}
        name = f"Core ML (macOS {platform.mac_ver()[0]}, {self._model.compute_unit.name})"
        super().__init__(name, fixed_size, description)

    def invoke(self) -> None:
        """Run the network on the prepared picture."""
        self._restored = self._model.predict(self._feeds)

    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""
        return from_planes(self._restored[self._output])

    def close(self) -> None:
        """Release the model and its tensors."""
        self._model = None
        self._feeds, self._restored = {}, {}

    def _feed(self, image: FloatPicture) -> None:
        self._feeds = {self._input: to_planes(image, np.float32)}

    def _feed_pooled(self, pooled: FloatPicture) -> None:
        assert self.pooling is not None
        self._feeds[self.pooling.pooled.name] = to_planes(
            pooled[np.newaxis, np.newaxis], np.float32
        )

    def _features(self) -> FloatPicture:
        assert self.pooling is not None
        return from_planes(self._restored[self.pooling.features.name])


def _coremltools() -> Any:
    # By name, because the runtime must not depend on an export library anywhere but here.
    try:
        return importlib.import_module("coremltools")
    except ImportError as error:
        raise UserError("coremltools is not installed; run pip install coremltools") from error


def _extents(array: Any) -> list[int | None]:
    if array.WhichOneof("ShapeFlexibility") == "shapeRange":
        return [
            size.lowerBound if size.lowerBound == size.upperBound else None
            for size in array.shapeRange.sizeRanges
        ]
    return [int(extent) for extent in array.shape]
