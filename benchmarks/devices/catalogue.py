"""The devices by name. Whoever adds one adds its module and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.devices.device import Device
from benchmarks.devices.litert_gpu import LiteRTGPU

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        LiteRTGPU(),
    )
}  # fmt: skip
