"""The devices by name. Whoever adds one adds its module and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.devices.arm64 import Arm64
from benchmarks.devices.arm64_instructions import Arm64Instructions
from benchmarks.devices.device import Device
from benchmarks.devices.litert_gpu import LiteRTGPU
from benchmarks.devices.litert_js import LiteRTJS
from benchmarks.devices.litert_qualcomm import LiteRTQualcomm
from benchmarks.devices.ncnn import NCNN
from benchmarks.devices.onnxruntime_web import OnnxRuntimeWeb
from benchmarks.devices.opencv import OpenCV
from benchmarks.devices.openvino import OpenVINO
from benchmarks.devices.qualcomm_htp import QualcommHTP
from benchmarks.devices.tensorflow import TensorFlow
from benchmarks.devices.tflite_runtime import TFLiteRuntime
from benchmarks.devices.tosa import TOSA
from runtime.snapdragon import SNAPDRAGONS

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        LiteRTGPU(),
        Arm64(),
        Arm64Instructions(),
        OnnxRuntimeWeb(),
        LiteRTJS("wasm", "WASM"),
        LiteRTJS("webgpu", "WebGPU"),
        QualcommHTP(SNAPDRAGONS["sm8350"]),
        QualcommHTP(SNAPDRAGONS["sm8650"]),
        LiteRTQualcomm(SNAPDRAGONS["sm8350"]),
        LiteRTQualcomm(SNAPDRAGONS["sm8650"]),
        TensorFlow("tensorflow", xnnpack=True),
        TensorFlow("tensorflow-plain", xnnpack=False),
        TFLiteRuntime(),
        TOSA(),
        OpenVINO("openvino", "f32"),
        OpenVINO("openvino-f16", "f16"),
        OpenCV("opencv", "new"),
        OpenCV("opencv-classic", "classic"),
        NCNN(),
    )
}
