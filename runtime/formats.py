"""The file formats of artifacts: one record each, from which everything about a format derives.

Imports nothing but the standard library: the command line reads its choices from here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["tflite", "onnx", "coreml"]
Precision = Literal["float32", "float16", "int8"]

_SYSTEMS = {"darwin": "macOS", "linux": "Linux", "win32": "Windows"}


@dataclass(frozen=True)
class FileFormat:
    """A file format.

    Attributes:
        suffix: Of its files (for Core ML, folders), with the dot.
        title: Its name for people.
        engines: What opens it, the usual one first; ``runtime.engines`` has a module of each.
        systems: Where it can run, the desktop's first; empty for everywhere.
        is_folder: Whether an artifact is a folder and not a file.
    """

    suffix: str
    title: str
    engines: tuple[str, ...]
    systems: tuple[str, ...] = ()
    is_folder: bool = False

    def runs_here(self) -> bool:
        """Tell whether this system can run the format."""
        return not self.systems or _SYSTEMS.get(sys.platform) in self.systems

    @property
    def not_run(self) -> str | None:
        """Why figures are missing where the format cannot run; None if it runs everywhere."""
        return f"not run (needs {self.systems[0]})" if self.systems else None


FORMATS: Mapping[Format, FileFormat] = {
    "tflite": FileFormat(".tflite", "TFLite", ("litert",)),
    "onnx": FileFormat(".onnx", "ONNX", ("onnxruntime", "openvino")),
    "coreml": FileFormat(".mlpackage", "Core ML", ("coreml",), ("macOS", "iOS"), is_folder=True),
}

BY_SUFFIX: Mapping[str, FileFormat] = {one.suffix: one for one in FORMATS.values()}
