"""ONNX artifacts through ONNX Runtime on the CPU."""

from __future__ import annotations

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

# Element types of a picture tensor, as ONNX Runtime spells them.
_TYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OnnxSession(Session):
    """An ``.onnx`` file (NCHW; float32 or float16 tensors, quantized inside or not)."""

    def __init__(self, path: Path, description: Description | None, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                "ONNX Runtime is not installed; run pip install onnxruntime, or use the .tflite"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what is fatal arrives as an exception
        # The pattern is a second block of all tensors beside the arena: memory without gain here.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no other base class
            raise UserError(
                f"{path}: ONNX Runtime cannot read it ({first_line(error)}); export it again"
            ) from error
        inputs = pictures_of(self._session.get_inputs(), description)
        outputs = pictures_of(self._session.get_outputs(), description)
        fixed_size = check_picture_tensors(
            path.name,
            "NCHW",
            [_extents(one.shape) for one in inputs],
            [_extents(one.shape) for one in outputs],
        )
        for tensor in (inputs[0], outputs[0]):
            if tensor.type not in _TYPES:
                raise UserError(
                    f"{path.name}: '{tensor.name}' is {tensor.type}, expected float or float16; "
                    "export it again"
                )
        self._name, self._outputs = inputs[0].name, [outputs[0].name]
        if description is not None and description.pooling is not None:
            self._outputs.append(description.pooling.features.name)
        self._type = _TYPES[inputs[0].type]
        self._feeds: dict[str, NDArray[Any]] = {}
        self._restored: list[NDArray[Any]] = []
        providers = "+".join(self._session.get_providers())
        super().__init__(
            f"ONNX Runtime {onnxruntime.__version__} {providers}", fixed_size, description
        )

    def invoke(self) -> None:
        """Run the network on the prepared picture."""
        self._restored = self._session.run(self._outputs, self._feeds)

    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""
        return from_planes(self._restored[0])

    def close(self) -> None:
        """Release the session and its tensors."""
        self._session = None
        self._feeds, self._restored = {}, []

    def _feed(self, image: FloatPicture) -> None:
        self._feeds = {self._name: to_planes(image, self._type)}

    def _feed_pooled(self, pooled: FloatPicture) -> None:
        assert self.pooling is not None
        self._feeds[self.pooling.pooled.name] = to_planes(
            pooled[np.newaxis, np.newaxis], np.float32
        )

    def _features(self) -> FloatPicture:
        return from_planes(self._restored[1])


def _extents(shape: list[int | str | None]) -> list[int | None]:
    return [extent if isinstance(extent, int) else None for extent in shape]
