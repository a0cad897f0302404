"""The file formats of artifacts: one record each, from which everything about a format derives.

Imports only the standard library, because the command line reads its choices from this module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["tflite", "onnx", "coreml", "coreai"]
Precision = Literal["float32", "float16", "int8"]
Ports = Literal["float32", "float16", "image"]
"""What a Core ML package takes and returns: arrays of a type, or images of 8 bits."""

_SYSTEMS = {"darwin": "macOS", "linux": "Linux", "win32": "Windows"}


@dataclass(frozen=True)
class FileFormat:
    """A file format.

    Attributes:
        suffix: Suffix of the files (for Core ML and Core AI, folders), with the dot.
        title: Name in messages and tables.
        engines: Engines that open the format, the default first; ``runtime.engines`` has a module
            for each.
        systems: Operating systems that run the format, the desktop system first; empty for all.
        is_folder: Whether an artifact is a folder and not a file.
        extra: The extra of the package that writes and runs the format, which is exported when it
            is asked for by name; None if it needs none of its own.
    """

    suffix: str
    title: str
    engines: tuple[str, ...]
    systems: tuple[str, ...] = ()
    is_folder: bool = False
    extra: str | None = None

    def runs_here(self) -> bool:
        """Tell whether this system can run the format."""
        return not self.systems or _SYSTEMS.get(sys.platform) in self.systems

    @property
    def not_run(self) -> str | None:
        """Reason for missing figures where the format cannot run; None if it runs everywhere."""
        return f"not run (needs {self.systems[0]})" if self.systems else None


FORMATS: Mapping[Format, FileFormat] = {
    "tflite": FileFormat(".tflite", "TFLite", ("litert",)),
    "onnx": FileFormat(".onnx", "ONNX", ("onnxruntime", "openvino")),
    "coreml": FileFormat(".mlpackage", "Core ML", ("coreml",), ("macOS", "iOS"), is_folder=True),
    "coreai": FileFormat(
        ".aimodel",
        "Core AI",
        ("coreai",),
        ("macOS", "iOS", "Linux"),
        is_folder=True,
        extra="coreai",
    ),
}

USUAL_FORMATS: tuple[Format, ...] = tuple(name for name, one in FORMATS.items() if not one.extra)
"""What is exported where no format is asked for."""

BY_SUFFIX: Mapping[str, FileFormat] = {one.suffix: one for one in FORMATS.values()}
