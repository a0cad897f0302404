"""ONNX artifacts through OpenVINO on the CPU, in the precision they were exported in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.errors import UserError, first_line
from runtime.manifest import Manifest
from runtime.sessions import (
    FloatPicture,
    Session,
    check_picture_tensors,
    from_planes,
    to_planes,
)


class OpenVINOSession(Session):
    """An ``.onnx`` file (NCHW; float32 or float16 tensors, quantized inside or not)."""

    def __init__(self, path: Path, manifest: Manifest | None, threads: int) -> None:
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
                [_extents(port) for port in model.inputs],
                [_extents(port) for port in model.outputs],
            )
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise UserError(
                f"{path}: OpenVINO cannot read it ({first_line(error)}); export it again"
            ) from error
        self._type = compiled.inputs[0].element_type.to_dtype()
        self._request = compiled.create_infer_request()
        self._tensor = openvino.Tensor
        version = openvino.__version__.split("-")[0]
        devices = "+".join(compiled.get_property("EXECUTION_DEVICES"))
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        super().__init__(f"OpenVINO {version} {devices} ({precision})", fixed_size, manifest)

    def invoke(self) -> None:
        """Run the network on the prepared picture."""
        self._request.infer()

    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""
        return from_planes(self._request.get_output_tensor().data)

    def close(self) -> None:
        """Release the compiled network and its tensors."""
        self._request = None

    def _feed(self, image: FloatPicture) -> None:
        self._request.set_input_tensor(self._tensor(to_planes(image, self._type)))


def _extents(port: Any) -> list[int | None]:
    return [
        None if dimension.is_dynamic else dimension.get_length()
        for dimension in port.get_partial_shape()
    ]
