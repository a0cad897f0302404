"""What a person may say of a network that does not ship with reslite."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runtime.errors import UserError

Architecture = Literal["carn", "carn-m", "pcarn", "pcarn-m"]
"""Networks whose checkpoints have equal shapes, two and two, and compute different things."""


Colour = Literal["rgb", "bgr", "y", "y-video"]
"""What a network restores: colours in an order, or luma over the whole range or that of video."""


@dataclass(frozen=True)
class Options:
    """How a network is made, beyond its name or file; all are optional.

    Attributes:
        weights: File of the weights that a network from Python is given (``--weights``).
        arguments: What its class or function is called with, by keyword (``--with``).
        architecture: The network that a checkpoint is of, where its names do not tell (``--as``).
        peak: White in the pictures that a network takes and returns (``--range``); None for 1.
        colour: Its colours (``--colour``); None for RGB, or for Y if it has one channel.
    """

    weights: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    architecture: Architecture | None = None
    peak: int | None = None
    colour: Colour | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The options that say something, as they are spelled on the command line."""
        spelled = {**self._plain, "--with": self.arguments or None}
        return tuple(option for option, value in spelled.items() if value is not None)

    @property
    def _plain(self) -> Mapping[str, object]:
        """The options that are one word each."""
        return {
            "--weights": self.weights,
            "--as": self.architecture,
            "--range": self.peak,
            "--colour": self.colour,
        }

    @property
    def words(self) -> tuple[str, ...]:
        """The options as words of a command line."""
        arguments = [
            ("--with", f"{key}={json.dumps(value)}") for key, value in self.arguments.items()
        ]
        said = [(option, str(value)) for option, value in self._plain.items() if value is not None]
        return tuple(word for pair in (*said, *arguments) for word in pair)

    def check(self, name: str, kind: str, allowed: Container[str] = ()) -> None:
        """Refuse options that would say nothing of a network.

        Args:
            name: The network, as the person named it.
            kind: What it is, for example "a network that ships with reslite".
            allowed: Options that go with this kind.

        Raises:
            UserError: If others are given.
        """
        if wrong := [option for option in self.given if option not in allowed]:
            raise UserError(
                f"{name}: {' and '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not go with "
                f"{kind}; leave {'it' if len(wrong) == 1 else 'them'} out"
            )
