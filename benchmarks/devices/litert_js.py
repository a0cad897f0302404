"""LiteRT.js in headless Chromium, on WebAssembly and on WebGPU.

It cannot resize inputs and takes no integers for them. WebGPU runs on SwiftShader, which computes
on the CPU: its results are those of a GPU's kernels, its speed is not.
"""

from __future__ import annotations

from benchmarks.devices.browser import BrowserDevice
from benchmarks.devices.device import Takes


class LiteRTJS(BrowserDevice):
    """LiteRT in the browser; files of fixed size with float input and output."""

    package = "@litertjs/core"
    script = "litert_js"
    takes = Takes({"tflite": ("float32", "float16", "int8")}, fixed_size=True, float_io=True)

    def __init__(self, accelerator: str, title: str) -> None:
        self.accelerator = accelerator
        self.name = f"litert-js-{accelerator}"
        self.title = f"LiteRT.js ({title})"
        self.profile = "litert-gpu" if accelerator == "webgpu" else None
