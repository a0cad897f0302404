"""Hiding TensorFlow from coremltools and TensorBoard, which import it without needing it.

Importing TensorFlow takes seconds, and its C++ code prints messages that Python cannot filter.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Make every import of TensorFlow fail in the block, unless it has been imported before."""
    if "tensorflow" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules  # None is how Python spells "cannot be imported".
    modules["tensorflow"] = None
    try:
        yield
    finally:
        del modules["tensorflow"]
