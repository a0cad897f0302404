"""onnxruntime-web on WebAssembly in headless Chromium."""

from __future__ import annotations

from benchmarks.devices.browser import BrowserDevice
from benchmarks.devices.device import Takes


class OnnxRuntimeWeb(BrowserDevice):
    """ONNX Runtime in the browser, on one thread."""

    name = "onnxruntime-web"
    title = "ONNX Runtime Web (WASM)"
    package = "onnxruntime-web"
    script = "onnxruntime_web"
    takes = Takes({"onnx": ("float32", "float16", "int8")}, fixed_size=True)
