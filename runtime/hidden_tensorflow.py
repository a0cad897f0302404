"""TensorFlow kept out of libraries that import it only in passing: coremltools and TensorBoard.

Where it is installed, that takes seconds, and TensorFlow's own messages come from C++, past every
filter of Python's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Let every import of TensorFlow fail; one that was imported before stays."""
    if "tensorflow" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules  # None is how Python spells "cannot be imported".
    modules["tensorflow"] = None
    try:
        yield
    finally:
        del modules["tensorflow"]
