"""The levels of SHDD, in a module that imports nothing heavy: the command line lists them."""

from __future__ import annotations

from typing import Literal

Level = Literal["easy", "moderate", "difficult"]
"""How often a picture is divided before its regions are distorted: 2, 3 or 4 times."""

ScoredLevel = Literal[Level, "untouched"]
"""The levels that networks are scored on. Untouched pictures show what a network does where there
is nothing to mend; there is nothing to learn from them alone and no data set to make of them."""
