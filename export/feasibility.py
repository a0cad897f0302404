"""Which files a network can become, told before any is written."""

from __future__ import annotations

from importlib import import_module
from typing import get_args

from export.errors import CannotLower
from export.graph import Graph
from export.lowering import lower
from export.profiles import DEFAULT_PROFILES, PROFILES
from export.writers.writing import check_int8, refuse
from runtime.formats import USUAL_FORMATS, Format, Precision


def obstacles(graph: Graph) -> dict[tuple[Format, Precision], str]:
    """Say why a network cannot be written, for each usual format and precision; empty if it can.

    Args:
        graph: As captured.
    """
    return {
        (kind, precision): _obstacle(graph, kind, precision)
        for kind in USUAL_FORMATS
        for precision in get_args(Precision)
    }


def _obstacle(graph: Graph, kind: Format, precision: Precision) -> str:
    profile = PROFILES[DEFAULT_PROFILES[kind]]
    try:
        lowered = lower(graph, profile.rewrites(precision))
        # Imported on first use, because importing coremltools takes seconds.
        refuse(lowered, import_module(f"export.writers.{kind}_writer").REFUSED)
        if precision == "int8":
            check_int8(lowered)
    except CannotLower as error:
        return str(error)
    return ""
