"""Writing uncompressed TIFF with 8 or 16 bits per sample, in the memory of a few rows.

Pillow writes no 16-bit colour. Format: TIFF 6.0 (Adobe 1992), part 1, and Adobe's PageMaker note
for the colour profile's tag.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from runtime.pictures.metadata import Metadata
from runtime.pictures.samples import BAND_ROWS, bands

# Offsets are 32 bits wide; the rest is left for the directory and the profile.
LARGEST_TIFF = 2**32 - 2**24

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 2, 3, 4, 5, 7
_CODES = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "II", _UNDEFINED: "B"}
_Tag = tuple[int, int, list[int] | bytes]


def write_tiff(
    stream: BinaryIO,
    pixels: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    icc: bytes | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Write a picture as baseline TIFF, one strip per band of rows.

    Args:
        stream: A seekable stream at position 0.
        pixels: H × W × 1 (grey) or H × W × 3 (RGB), uint8 or uint16.
        alpha: H × W × 1 of the same type, or None. Stored as unassociated alpha.
        icc: Colour profile, or None.
        metadata: Metadata, or None; texts are left out.
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
    if metadata is not None:
        tags += _tags_of(stream, metadata)
    _write_directory(stream, sorted(tags))


def _tags_of(stream: BinaryIO, metadata: Metadata) -> Iterator[_Tag]:
    """Yield the tags of the metadata, and write the directories that two of them point to."""
    if metadata.dpi is not None:
        for number, density in zip((282, 283), metadata.dpi, strict=True):
            yield number, _RATIONAL, [round(density * 1000), 1000]
        yield 296, _SHORT, [2]  # pixels per inch
    if metadata.xmp:
        yield 700, _BYTE, metadata.xmp
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    for number, value in exif.items():
        if content := exif.get_ifd(number):
            directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0", group=number)
            for key, one in content.items():
                directory[key] = one
            yield number, _LONG, [_at_even_byte(stream)]
            stream.write(directory.tobytes(stream.tell()))
        elif isinstance(value, str):
            yield number, _ASCII, value.encode() + b"\0"
        elif isinstance(value, bytes):
            yield number, _BYTE, value


def _write_directory(stream: BinaryIO, tags: list[_Tag]) -> None:
    start = _at_even_byte(stream)
    outside = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for number, kind, content in tags:
        count = len(content) // len(_CODES[kind])
        packed = struct.pack(f"<{_CODES[kind] * count}", *content)
        if len(packed) > 4:
            field = struct.pack("<I", outside + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", number, kind, count) + field
    stream.write(struct.pack("<H", len(tags)) + entries + bytes(4) + values)
    stream.seek(4)
    stream.write(struct.pack("<I", start))


def _at_even_byte(stream: BinaryIO) -> int:
    """Pad to the next even byte, where directories must begin, and return its offset."""
    stream.write(bytes(stream.tell() % 2))
    return stream.tell()
