"""How int8 is decided, in names and numbers that the command line loads quickly."""

from __future__ import annotations

from typing import Literal

Method = Literal["cautious", "mse", "percentile", "min-max", "measured"]
"""See ``quantize.observers``; ``measured`` is ``quantize.range_choice``."""

TUNING_MINUTES = 1.5
"""How long a network that is not reslite's own is tuned if nobody says otherwise."""
