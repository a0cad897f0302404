"""TFLite Runtime 2.14, LiteRT's predecessor as many boards still have it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.devices.device import Execution, Subject, Takes, run_session
from benchmarks.devices.environments import SeparateDevice
from runtime.engines.litert_engine import LiteRTEngine
from runtime.session import FloatPicture


class TFLiteRuntime(SeparateDevice):
    """TFLite Runtime with XNNPACK."""

    name = "tflite-runtime"
    title = "TFLite Runtime"
    takes = Takes({"tflite": ("float32", "float16", "int8")})
    environment_name = "tflite-runtime"
    packages = ("tflite-runtime",)

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file in the interpreter."""
        from tflite_runtime.interpreter import Interpreter

        made = Interpreter(model_path=str(subject.path), num_threads=1)
        engine = LiteRTEngine(f"TFLite Runtime {self.versions()['tflite-runtime']}", made)
        return Execution(engine.name, run_session(engine, subject, pictures), self.versions())
