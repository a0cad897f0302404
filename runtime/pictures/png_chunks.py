"""Separating the metadata chunks of a PNG from its pixel chunks, which Pillow decodes.

Pillow refuses files with a damaged or a large text, and drops the chunks about colour space.
Format: PNG Specification, Third Edition (W3C 2025), sections 5 and 11.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from runtime.pictures.metadata import Metadata, descriptive_exif, without_storage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"

_LARGEST = 1 << 26  # bytes of a decompressed text or profile; larger ones may be an attack
# Ancillary chunks that the pixels depend on: transparency, and the frames of an animation.
_OF_THE_PIXELS = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
_EXIF_COPY = "Raw profile type"  # ImageMagick's keyword for EXIF and XMP in a text chunk


@dataclass(frozen=True)
class Chunks:
    """A PNG file taken apart.

    Attributes:
        pixels: A PNG file that holds only the pixels.
        icc: The colour profile.
        orientation: Orientation in EXIF, 1 to 8; 1 without EXIF.
        metadata: All other metadata; chunks with a wrong checksum are left out.
    """

    pixels: bytes
    icc: bytes | None
    orientation: int
    metadata: Metadata


def take_apart(content: bytes) -> Chunks:
    """Separate the metadata of a PNG file from its pixels.

    Args:
        content: The file. An incomplete chunk stays with the pixels, for the decoder to report.
    """
    pixels, said = [SIGNATURE], dict[bytes, list[bytes]]()
    for kind, data, whole, is_sound in _chunks(content):
        if not kind[:1].islower() or kind in _OF_THE_PIXELS:
            pixels.append(whole)
        elif is_sound:
            said.setdefault(kind, []).append(data)
    texts = dict(_texts(said))
    exif = _exif(said, texts)
    xmp = texts.pop(XMP_KEYWORD, None)
    return Chunks(
        pixels=b"".join(pixels),
        icc=_profile(said),
        orientation=_orientation(exif),
        metadata=Metadata(
            gamma=_number(said, b"gAMA", ">I"),
            chromaticities=_exactly(said, b"cHRM", 32),
            intent=_number(said, b"sRGB", ">B"),
            cicp=_exactly(said, b"cICP", 4),
            density=_density(said),
            texts=tuple(item for item in texts.items() if not item[0].startswith(_EXIF_COPY)),
            exif=descriptive_exif(exif),
            xmp=without_storage(xmp),
        ),
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Yield kind, data, the whole chunk, and whether its checksum is right."""
    start = len(SIGNATURE)
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        whole = content[start : start + 12 + length]
        kind, data = whole[4:8], whole[8 : 8 + length]
        if len(whole) < 12 + length:
            yield b"", b"", content[start:], False
            return
        yield kind, data, whole, zlib.crc32(kind + data) == int.from_bytes(whole[-4:], "big")
        start += len(whole)
        if kind == b"IEND":
            return


def _exactly(said: dict[bytes, list[bytes]], kind: bytes, length: int) -> bytes | None:
    return next((data for data in said.get(kind, ()) if len(data) == length), None)


def _number(said: dict[bytes, list[bytes]], kind: bytes, form: str) -> int | None:
    data = _exactly(said, kind, struct.calcsize(form))
    return None if data is None else int(struct.unpack(form, data)[0])


def _density(said: dict[bytes, list[bytes]]) -> tuple[float, float] | None:
    data = _exactly(said, b"pHYs", 9)
    if data is None:
        return None
    x, y, unit = struct.unpack(">IIB", data)
    return (float(x), float(y)) if unit == 1 and x and y else None


def _profile(said: dict[bytes, list[bytes]]) -> bytes | None:
    for data in said.get(b"iCCP", ()):
        _, _, compressed = data.partition(b"\0")
        return _inflated(compressed[1:]) or None
    return None


def _texts(said: dict[bytes, list[bytes]]) -> Iterator[tuple[str, str]]:
    for data in said.get(b"tEXt", ()):
        keyword, _, text = data.partition(b"\0")
        yield keyword.decode("latin-1"), text.decode("latin-1")
    for data in said.get(b"zTXt", ()):
        keyword, _, compressed = data.partition(b"\0")
        if (inflated := _inflated(compressed[1:])) is not None:
            yield keyword.decode("latin-1"), inflated.decode("latin-1")
    for data in said.get(b"iTXt", ()):
        keyword, _, rest = data.partition(b"\0")
        flags, (_, _, body) = rest[:2], (*rest[2:].split(b"\0", 2), b"", b"")[:3]
        content = _inflated(body) if flags[:1] == b"\1" else body
        if content is not None:
            yield keyword.decode("latin-1"), content.decode("utf-8", "replace")


def _inflated(compressed: bytes) -> bytes | None:
    """Decompress; None for data that is damaged or longer than ``_LARGEST``."""
    decompressor = zlib.decompressobj()
    try:
        inflated = decompressor.decompress(compressed, _LARGEST)
    except zlib.error:
        return None
    return inflated if decompressor.eof else None


def _exif(said: dict[bytes, list[bytes]], texts: dict[str, str]) -> Image.Exif:
    """Return the EXIF data, from its own chunk or from the text chunks of older programs."""
    carrier = Image.new("1", (1, 1))
    carrier.info.update(texts)
    if b"eXIf" in said:
        carrier.info["exif"] = b"Exif\0\0" + said[b"eXIf"][0]
    try:
        return carrier.getexif()
    except Exception:  # the pixels are readable even if Pillow cannot read the EXIF data
        return Image.Exif()


def _orientation(exif: Image.Exif) -> int:
    found = exif.get(0x0112, 1)
    return found if isinstance(found, int) else 1
