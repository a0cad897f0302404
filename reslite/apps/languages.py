"""The languages of the sample apps: one line and one folder of source files for each.

Imports no heavy library, because the command line reads its choices from this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UserError
from runtime.formats import Format, Precision


@dataclass(frozen=True)
class Language:
    """A language that there is a sample app in.

    Attributes:
        name: Its name on the command line, and that of the folder of its source files.
        opens: Formats and precisions of the files that the sample opens, the best first.
        images: Whether it opens files that take and return images, too, which it then prefers.
    """

    name: str
    opens: tuple[tuple[Format, Precision], ...]
    images: bool = False

    def sources(self) -> Mapping[str, bytes]:
        """Return the source files, which stand in every app as they are."""
        folder = Path(__file__).parent / self.name
        files = (path for path in sorted(folder.iterdir()) if path.is_file())
        return {path.name: path.read_bytes() for path in files}


LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (
        Language("kotlin", (("tflite", "int8"), ("tflite", "float32"))),
        Language("swift", (("coreml", "float16"), ("coreml", "float32")), images=True),
        # onnxruntime-web computes int8 files otherwise than ONNX Runtime on CPUs (docs/ship.md).
        Language("js", (("onnx", "float32"),)),
        Language("python", (("tflite", "int8"), ("tflite", "float32"))),
    )
}


def language_named(name: str) -> Language:
    """Return the language ``name``.

    Raises:
        UserError: If there is no sample in it.
    """
    if name not in LANGUAGES:
        raise UserError(f"{name}: no sample app in it; choose one of {', '.join(LANGUAGES)}")
    return LANGUAGES[name]
