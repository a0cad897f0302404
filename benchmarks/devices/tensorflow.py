"""TensorFlow's own TFLite interpreter, with its optimized kernels or with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec

from benchmarks.devices.device import Device, Execution, Subject, Takes, run_session
from runtime.engines.litert_engine import LiteRTEngine
from runtime.session import FloatPicture


class TensorFlow(Device):
    """TensorFlow's interpreter.

    Attributes:
        xnnpack: Whether XNNPACK takes the operators, as by default.
    """

    takes = Takes({"tflite": ("float32", "float16", "int8")})

    def __init__(self, name: str, xnnpack: bool) -> None:
        self.name, self.xnnpack = name, xnnpack
        self.title = "TensorFlow" if xnnpack else "TensorFlow without XNNPACK"

    def missing(self) -> str | None:
        """Return that TensorFlow is missing, or None."""
        if find_spec("tensorflow") is None:
            return "needs TensorFlow: pip install 'reslite[tensorflow]'"
        return None

    def versions(self) -> Mapping[str, str]:
        """Return TensorFlow's version."""
        for package in ("tensorflow-cpu", "tensorflow"):
            try:
                return {package: metadata.version(package)}
            except metadata.PackageNotFoundError:
                continue
        return {"tensorflow": "of unknown version"}

    def environment(self) -> Mapping[str, str]:
        """Return the variables that keep TensorFlow quiet and from a GPU."""
        return {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file in the interpreter."""
        import tensorflow as tf

        kinds = tf.lite.experimental.OpResolverType
        made = tf.lite.Interpreter(
            model_path=str(subject.path),
            num_threads=1,
            experimental_op_resolver_type=kinds.AUTO
            if self.xnnpack
            else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        kernels = "XNNPACK" if self.xnnpack else "optimized kernels"
        engine = LiteRTEngine(f"TensorFlow {tf.__version__} ({kernels})", made)
        outputs = run_session(engine, subject, pictures)
        return Execution(engine.name, outputs, self.versions())
