"""What an idiom stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir


@dataclass(frozen=True)
class Found:
    """An operator that does the work of a group.

    Attributes:
        op: Its name.
        inputs: What it reads.
        attributes: Its attributes.
    """

    op: str
    inputs: Sequence[ir.Value | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
