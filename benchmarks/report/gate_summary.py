"""The outcome of the gate as text: a table for the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks.gate import Deviation
from benchmarks.report.tables import text_table
from benchmarks.snapshots import UPDATE_COMMAND


def deviation_table(deviations: Sequence[Deviation], options: str = "") -> str:
    """Return the deviations as a table, and the command that accepts them, with its ``options``."""
    rows = [dataclasses.astuple(deviation) for deviation in deviations]
    header = ("artifact", "quantity", "expected", "found", "tolerance")
    return (
        f"{text_table(header, rows)}\n"
        f"If this is intended, accept it as the new baseline: {UPDATE_COMMAND}{options}"
    )
