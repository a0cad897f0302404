"""Which files a network can become, told before any is written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import get_args

from export.errors import CannotLower
from export.graph import Graph
from export.lowering import lower
from export.profiles import DEFAULT_PROFILES, PROFILES
from export.writers.writing import check_int8, refuse
from runtime.formats import Format, Precision

_WRITERS: Mapping[Format, str] = {
    "onnx": "export.writers.onnx_writer",
    "tflite": "export.writers.tflite_writer",
    "coreml": "export.writers.coreml_writer",
}
"""Modules of the writers, imported on first use because coremltools takes seconds."""


def obstacles(graph: Graph) -> dict[tuple[Format, Precision], str]:
    """Say why a network cannot be written, for each format and precision; empty where it can.

    Args:
        graph: As captured.
    """
    return {
        (kind, precision): _obstacle(graph, kind, precision)
        for kind in DEFAULT_PROFILES
        for precision in get_args(Precision)
    }


def _obstacle(graph: Graph, kind: Format, precision: Precision) -> str:
    profile = PROFILES[DEFAULT_PROFILES[kind]]
    try:
        lowered = lower(graph, profile.rewrites(precision))
        refuse(lowered, import_module(_WRITERS[kind]).REFUSED)
        if precision == "int8":
            check_int8(lowered)
    except CannotLower as error:
        return str(error)
    return ""
