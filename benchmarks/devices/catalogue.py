"""The devices by name. Whoever adds one adds its module and a line here.

``reslite prove`` executes files on those that compute, count or compile; ``reslite bench`` measures
on those that time, count or estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from benchmarks.devices.adb import Adb
from benchmarks.devices.arm64 import Arm64
from benchmarks.devices.arm64_instructions import Arm64Instructions
from benchmarks.devices.coreml import CoreML
from benchmarks.devices.cpu import CPU
from benchmarks.devices.cuda import Cuda
from benchmarks.devices.device import Device, TimedDevice
from benchmarks.devices.ethos_u import TARGETS, EthosU
from benchmarks.devices.litert_gpu import LiteRTGPU
from benchmarks.devices.litert_js import LiteRTJS
from benchmarks.devices.litert_qualcomm import LiteRTQualcomm
from benchmarks.devices.ncnn import NCNN
from benchmarks.devices.onnxruntime_web import OnnxRuntimeWeb
from benchmarks.devices.opencv import OpenCV
from benchmarks.devices.openvino import OpenVINO, TimedOpenVINO
from benchmarks.devices.qualcomm_htp import QualcommHTP
from benchmarks.devices.remote import RemoteDevice
from benchmarks.devices.ssh import Ssh
from benchmarks.devices.tensorflow import TensorFlow
from benchmarks.devices.tflite_runtime import TFLiteRuntime
from benchmarks.devices.tosa import TOSA
from benchmarks.devices.transport import Transport
from runtime.errors import UserError, nearest
from runtime.snapdragon import SNAPDRAGONS

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        CPU(),
        Cuda(),
        CoreML("coreml-cpu", "Core ML on the CPU", "CPU_ONLY"),
        CoreML("coreml-gpu", "Core ML on the GPU", "CPU_AND_GPU"),
        CoreML("coreml-ne", "Core ML on the Neural Engine", "CPU_AND_NE"),
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
        TimedOpenVINO("openvino", "f32"),
        OpenVINO("openvino-f16", "f16"),
        OpenCV("opencv", "new"),
        OpenCV("opencv-classic", "classic"),
        NCNN(),
        *(EthosU(target) for target in TARGETS.values()),
    )
}

TRANSPORTS: Mapping[str, Callable[[str], Transport]] = {"android": Adb, "ssh": Ssh}
"""The ways to other machines, which are devices under a name such as ``android:SERIAL``."""


def remote_device(name: str) -> RemoteDevice | None:
    """Return the device of a name such as ``ssh:HOST``, or None if no transport is named so."""
    transport, _, machine = name.partition(":")
    return RemoteDevice(TRANSPORTS[transport](machine)) if transport in TRANSPORTS else None


def proving() -> list[Device]:
    """Return the devices that ``reslite prove`` executes files on unless others are named."""
    return [one for one in DEVICES.values() if one.evidence not in ("measured", "estimated")]


def measuring() -> dict[str, Device]:
    """Return the devices that ``reslite bench`` takes, by name."""
    return {
        name: one
        for name, one in DEVICES.items()
        if isinstance(one, TimedDevice) or one.unit is not None
    }


def named(names: Iterable[str], known: Mapping[str, Device]) -> list[Device]:
    """Return the devices of names that a person gave, each once.

    Args:
        names: The names; each may hold several, separated by commas.
        known: The devices to choose of.

    Raises:
        UserError: If a name is unknown; it tells the nearest one, or the verb that takes it.
    """
    split = [part.strip() for name in names for part in name.split(",") if part.strip()]
    for name in split:
        if name in known:
            continue
        choice = f"choose of {', '.join(known)}"
        if name in DEVICES:
            verb = "bench" if name in measuring() else "prove"
            raise UserError(
                f"{name}: is {DEVICES[name].evidence}; 'reslite {verb}' takes it; {choice}"
            )
        raise UserError(f"{name}: no such device; {choice}{nearest(name, list(known))}")
    return [known[name] for name in dict.fromkeys(split)]
