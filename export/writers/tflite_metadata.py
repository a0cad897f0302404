"""The metadata entry of a .tflite file that Android Studio and MediaPipe read.

It is a flatbuffer of its own, with TensorFlow's public schema ``metadata_schema.fbs`` (1.0.0). No
maintained package brings code for it, so that its tables are put together here, field by field:
names and numbers of fields are those of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np

from export.writers.description import AUTHOR, Description, version

NAME = "TFLITE_METADATA"
"""The name of the entry."""

_IDENTIFIER = b"M001"
_OLDEST_READER = "1.0.0"
_FEATURES, _IMAGE = 1, 2  # of the union ContentProperties
_NORMALIZATION = 1  # of the union ProcessUnitOptions
_RGB = 1
_PIXELS = 255.0


@dataclass(frozen=True)
class TensorText:
    """What is told of an input or output.

    Attributes:
        name: Its name.
        text: What its numbers mean.
        is_picture: Whether it is a picture, and no further tensor of a file cut at its pooling.
        limits: The least and the greatest number it holds, if they are known.
        size: Height and width, if they are fixed.
    """

    name: str
    text: str
    is_picture: bool
    limits: tuple[float, float] | None = None
    size: tuple[int, int] | None = None


def tflite_metadata(
    summary: str,
    inputs: Sequence[TensorText],
    outputs: Sequence[TensorText],
    description: Description,
) -> bytes:
    """Return the bytes of the entry.

    Args:
        summary: What the file does.
        inputs: Its inputs, in order.
        outputs: Its outputs, in order.
        description: What is known of the network; told line by line after the summary.
    """
    builder = flatbuffers.Builder(1 << 12)
    facts = description.facts()
    lines = [summary, *(f"{name}: {fact}" for name, fact in facts.items())]
    subgraph = _table(
        builder,
        {
            2: _vector(builder, [_tensor(builder, one, normalized=True) for one in inputs]),
            3: _vector(builder, [_tensor(builder, one) for one in outputs]),
        },
    )
    model = _table(
        builder,
        {
            0: builder.CreateString(facts.get("model", AUTHOR)),
            1: builder.CreateString("\n".join(lines)),
            2: builder.CreateString(version()),
            3: _vector(builder, [subgraph]),
            4: builder.CreateString(AUTHOR),
            5: builder.CreateString(description.licence or ""),
            7: builder.CreateString(_OLDEST_READER),
        },
    )
    builder.Finish(model, _IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: flatbuffers.Builder, told: TensorText, normalized: bool = False) -> int:
    fields = {
        0: builder.CreateString(told.name),
        1: builder.CreateString(told.text),
        3: _content(builder, told),
    }
    if normalized and told.is_picture:
        # From pixels to what the network reads: (pixel − 0) / 255.
        options = _table(builder, {0: _numbers(builder, 0.0), 1: _numbers(builder, _PIXELS)})
        fields[4] = _vector(builder, [_table(builder, {1: options}, {0: _NORMALIZATION})])
    if told.limits is not None:
        least, greatest = told.limits
        most, few = _numbers(builder, greatest), _numbers(builder, least)
        fields[5] = _table(builder, {0: most, 1: few})
    return _table(builder, fields)


def _content(builder: flatbuffers.Builder, told: TensorText) -> int:
    if not told.is_picture:
        return _table(builder, {1: _table(builder, {})}, {0: _FEATURES})
    size = {}
    if told.size is not None:
        builder.StartObject(2)
        builder.PrependUint32Slot(0, told.size[1], 0)
        builder.PrependUint32Slot(1, told.size[0], 0)
        size = {1: builder.EndObject()}
    return _table(builder, {1: _table(builder, size, {0: _RGB})}, {0: _IMAGE})


def _table(
    builder: flatbuffers.Builder, offsets: Mapping[int, int], kinds: Mapping[int, int] | None = None
) -> int:
    """Add a table with fields at offsets and enumerations of a byte, by their numbers."""
    kinds = kinds or {}
    builder.StartObject(max((*offsets, *kinds), default=-1) + 1)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, kind in kinds.items():
        builder.PrependUint8Slot(field, kind, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: flatbuffers.Builder, number: float) -> int:
    return int(builder.CreateNumpyVector(np.array([number], np.float32)))
