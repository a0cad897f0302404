"""OpenCV's dnn module, which has two engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Execution, Subject, Takes, restored
from benchmarks.devices.environments import SeparateDevice
from runtime.session import FloatPicture


class OpenCV(SeparateDevice):
    """An engine of OpenCV on this CPU. Its TFLite reader lacks DEPTH_TO_SPACE and int8 ReLU.

    Attributes:
        engine: ``classic``, or ``new``, which OpenCV 5 takes by default.
    """

    takes = Takes({"onnx": ("float32", "float16", "int8")})
    environment_name = "opencv"
    packages = ("opencv-python-headless",)

    def __init__(self, name: str, engine: Literal["classic", "new"]) -> None:
        self.name, self.engine = name, engine
        self.title = f"OpenCV ({engine} engine)"

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Read the file with the engine and run it."""
        import cv2

        cv2.setNumThreads(1)
        chosen = f"ENGINE_{self.engine.upper()}"
        network = cv2.dnn.readNetFromONNX(str(subject.path), getattr(cv2.dnn, chosen))

        def run(array: NDArray[Any]) -> NDArray[Any]:
            network.setInput(array)
            return np.array(network.forward())

        outputs = restored(run, subject, pictures)
        name = f"OpenCV {cv2.__version__} dnn, {self.engine} engine"
        return Execution(name, outputs, self.versions(), settings=f"cv2.dnn.{chosen}")
