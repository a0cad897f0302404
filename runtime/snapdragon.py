"""Qualcomm's systems on a chip (SoC) whose neural processor, the HTP, reslite compiles for.

Qualcomm's compilers know an SoC by a number; name, number and architecture are what its own plugin
for LiteRT reports of each (``Initializing QNN backend for SoC model: 57``, ``requested arch is
v75``; ai-edge-litert 2.3.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.errors import UserError

FLOAT_ARCHITECTURE = 75
"""The first architecture of the HTP for which Qualcomm's compilers take floats here, as halves."""


@dataclass(frozen=True)
class Snapdragon:
    """An SoC.

    Attributes:
        name: Qualcomm's part number in lower case.
        title: Name that phones are sold with.
        architecture: Version of the HTP, for example 75 for v75.
        model: Qualcomm's number of the SoC.
    """

    name: str
    title: str
    architecture: int
    model: int


SNAPDRAGONS: Mapping[str, Snapdragon] = {
    soc.name: soc
    for soc in (
        Snapdragon("sm8350", "Snapdragon 888", 68, 30),
        Snapdragon("sm8450", "Snapdragon 8 Gen 1", 69, 36),
        Snapdragon("sm8475", "Snapdragon 8+ Gen 1", 69, 42),
        Snapdragon("sm8550", "Snapdragon 8 Gen 2", 73, 43),
        Snapdragon("sm8650", "Snapdragon 8 Gen 3", 75, 57),
        Snapdragon("sm8750", "Snapdragon 8 Elite", 79, 69),
        Snapdragon("sm8850", "Snapdragon 8 Elite Gen 5", 81, 87),
    )
}
"""The SoCs by name, the oldest first."""


def snapdragon_named(name: str) -> Snapdragon:
    """Return an SoC.

    Raises:
        UserError: If reslite does not know it.
    """
    try:
        return SNAPDRAGONS[name.lower()]
    except KeyError:
        known = ", ".join(f"{soc.name} ({soc.title})" for soc in SNAPDRAGONS.values())
        raise UserError(f"{name}: no SoC that reslite knows; choose one of {known}") from None
