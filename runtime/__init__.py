"""Restoring pictures with an exported artifact: ``runtime.open("carn_m_x4_int8.tflite")``.

Importing this package loads neither numpy nor an inference runtime; opening a session does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.session import Session

__all__ = ["open"]


def open(  # noqa: A001  (``runtime.open`` is the name people type)
    path: str | os.PathLike[str],
    verify: bool = True,
    runtime: str | None = None,
    threads: int | None = None,
) -> Session:
    """Open an artifact for inference; see :func:`runtime.opening.open`."""
    from runtime import opening

    return opening.open(path, verify=verify, runtime=runtime, threads=threads)
