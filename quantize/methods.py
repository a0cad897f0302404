"""The names of the methods that choose ranges, apart from torch for the command line to read."""

from __future__ import annotations

from typing import Literal

Method = Literal["cautious", "mse", "percentile", "min-max", "measured"]
"""See ``quantize.observers`` and, for the last, ``quantize.range_choice``."""
