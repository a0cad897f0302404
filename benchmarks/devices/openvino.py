"""OpenVINO on this CPU, through its readers of ONNX and TFLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Device, Execution, Subject, Takes, restored
from benchmarks.devices.timed_process import ProcessTimedDevice
from runtime.session import FloatPicture


class OpenVINO(Device):
    """OpenVINO with a hint of the precision that floats are computed in.

    Attributes:
        hint: ``f32`` or ``f16``; with ``f16`` a CPU computes in what it has, which may be bfloat16.
    """

    takes = Takes(
        {
            "onnx": ("float32", "float16", "int8"),
            "tflite": ("float32", "float16", "int8"),
        }
    )

    def __init__(self, name: str, hint: Literal["f32", "f16"]) -> None:
        self.name, self.hint = name, hint
        self.title = f"OpenVINO ({hint} hint)"

    def missing(self) -> str | None:
        """Return that OpenVINO is missing, or None."""
        if find_spec("openvino") is None:
            return "needs OpenVINO: pip install 'reslite[openvino]'"
        return None

    def versions(self) -> Mapping[str, str]:
        """Return OpenVINO's version."""
        return {"openvino": metadata.version("openvino")}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Compile the file for the CPU and run it."""
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": self.hint, "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(core.read_model(str(subject.path)), "CPU", settings)
        request = compiled.create_infer_request()

        def run(array: NDArray[Any]) -> NDArray[Any]:
            request.set_input_tensor(openvino.Tensor(array))
            request.infer()
            return np.array(request.get_output_tensor(0).data)

        outputs = restored(run, subject, pictures)
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        where = "+".join(compiled.get_property("EXECUTION_DEVICES"))
        return Execution(
            f"OpenVINO {metadata.version('openvino')} {where}",
            outputs,
            self.versions(),
            facts={"computes in": precision, **_precisions(compiled)},
            settings=f"INFERENCE_PRECISION_HINT={self.hint}",
        )


class TimedOpenVINO(OpenVINO, ProcessTimedDevice):
    """OpenVINO as ``runtime.engines`` opens it: in the precision of the file, ONNX alone."""

    engine = "openvino"


def _precisions(compiled: Any) -> dict[str, int]:
    """Return how many convolutions the compiled network computes in each precision."""
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "layerType" in info and "Convolution" in str(info["layerType"].value):
            key = f"convolutions in {info['runtimePrecision'].value}"
            counts[key] = counts.get(key, 0) + 1
    return counts
