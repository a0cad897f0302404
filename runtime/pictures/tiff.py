"""Writing uncompressed TIFF with 8 or 16 bits per sample, in the memory of a few rows.

Pillow writes no 16-bit colour. Format: TIFF 6.0 (Adobe 1992), part 1, and Adobe's PageMaker note
for the colour profile's tag.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from numpy.typing import NDArray

from runtime.pictures.samples import BAND_ROWS, bands

# Offsets are 32 bits wide; the rest is left for the directory and the profile.
LARGEST_TIFF = 2**32 - 2**24

_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_CODES = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B"}
_Tag = tuple[int, int, list[int] | bytes]


def write_tiff(
    stream: BinaryIO,
    pixels: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    icc: bytes | None = None,
) -> None:
    """Write a picture as baseline TIFF, one strip per band of rows.

    Args:
        stream: Where to write, at position 0; must be able to seek.
        pixels: H × W × 1 (grey) or H × W × 3 (RGB), uint8 or uint16.
        alpha: H × W × 1 of the same type, or None. Stored as unassociated alpha.
        icc: Colour profile, or None.
    """
    height, width, colours = pixels.shape
    stream.write(b"II*\0" + bytes(4))
    offsets, lengths = [], []
    for band in bands(pixels, alpha):
        offsets.append(stream.tell())
        lengths.append(band.nbytes)
        stream.write(band.astype(band.dtype.newbyteorder("<")).tobytes())
    channels = colours if alpha is None else colours + 1
    tags: list[_Tag] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8 * pixels.dtype.itemsize] * channels),
        (259, _SHORT, [1]),  # no compression
        (262, _SHORT, [1 if colours == 1 else 2]),  # black is zero, or RGB
        (273, _LONG, offsets),
        (277, _SHORT, [channels]),
        (278, _LONG, [BAND_ROWS]),
        (279, _LONG, lengths),
        (284, _SHORT, [1]),  # samples of a pixel lie together
    ]
    if alpha is not None:
        tags.append((338, _SHORT, [2]))
    if icc:
        tags.append((34675, _UNDEFINED, icc))
    _write_directory(stream, tags)


def _write_directory(stream: BinaryIO, tags: list[_Tag]) -> None:
    start = stream.tell() + stream.tell() % 2
    outside = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for number, kind, content in tags:
        packed = struct.pack(f"<{len(content)}{_CODES[kind]}", *content)
        if len(packed) > 4:
            field = struct.pack("<I", outside + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", number, kind, len(content)) + field
    stream.write(bytes(start - stream.tell()))
    stream.write(struct.pack("<H", len(tags)) + entries + bytes(4) + values)
    stream.seek(4)
    stream.write(struct.pack("<I", start))
