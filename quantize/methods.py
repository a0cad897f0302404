"""The names of the methods that choose ranges, in a module that the command line loads quickly."""

from __future__ import annotations

from typing import Literal

Method = Literal["cautious", "mse", "percentile", "min-max", "measured"]
"""See ``quantize.observers``; ``measured`` is ``quantize.range_choice``."""
