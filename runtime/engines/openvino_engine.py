"""ONNX artifacts through OpenVINO on the CPU, in the precision they were exported in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


class OpenVINOSession(Session):
    """An ``.onnx`` file (NCHW; float32 or float16 tensors, quantized inside or not)."""

    def __init__(self, path: Path, description: Description | None, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError(
                "OpenVINO is not installed; run pip install 'reslite[openvino]'"
            ) from error
        # Without the hint, CPUs with AMX compute float32 networks in bfloat16.
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
            fixed_size = check_picture_tensors(
                path.name,
                "NCHW",
                [_extents(port) for port in _pictures_of(model.inputs, description)],
                [_extents(port) for port in _pictures_of(model.outputs, description)],
            )
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise UserError(
                f"{path}: OpenVINO cannot read it ({first_line(error)}); export it again"
            ) from error
        self._image, self._restored = (
            _pictures_of(ports, description)[0] for ports in (compiled.inputs, compiled.outputs)
        )
        self._type = self._image.element_type.to_dtype()
        self._request = compiled.create_infer_request()
        self._tensor = openvino.Tensor
        version = openvino.__version__.split("-")[0]
        devices = "+".join(compiled.get_property("EXECUTION_DEVICES"))
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        super().__init__(f"OpenVINO {version} {devices} ({precision})", fixed_size, description)

    def invoke(self) -> None:
        """Run the network on the prepared picture."""
        self._request.infer()

    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""
        return from_planes(self._request.get_tensor(self._restored).data)

    def close(self) -> None:
        """Release the compiled network and its tensors."""
        self._request = None

    def _feed(self, image: FloatPicture) -> None:
        self._request.set_tensor(self._image, self._tensor(to_planes(image, self._type)))

    def _feed_pooled(self, pooled: FloatPicture) -> None:
        assert self.pooling is not None
        planes = to_planes(pooled[np.newaxis, np.newaxis], self._type)
        self._request.set_tensor(self.pooling.pooled.name, self._tensor(planes))

    def _features(self) -> FloatPicture:
        assert self.pooling is not None
        return from_planes(self._request.get_tensor(self.pooling.features.name).data)


def _pictures_of(ports: Sequence[Any], description: Description | None) -> list[Any]:
    return pictures_of(ports, description, lambda port: port.get_any_name())


def _extents(port: Any) -> list[int | None]:
    return [
        None if dimension.is_dynamic else dimension.get_length()
        for dimension in port.get_partial_shape()
    ]
