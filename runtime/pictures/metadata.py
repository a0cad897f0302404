"""The metadata of a picture file, and the part of it that is still true of an enlarged picture.

The colour profile is not included: every format can hold it, and it is a field of ``PictureFile``.
Sources: PNG Specification, Third Edition (W3C 2025), section 11.3; Exif 2.32, section 4.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

_METRES_PER_INCH = 0.0254
_SRGB_GAMMA = range(40_000, 50_001)  # around 45,455, the value in sRGB files
_SRGB_TRANSFERS = (1, 6, 13, 14, 15)  # cICP: BT.709 and alike, and sRGB itself

# EXIF tags about a picture's content and author; tags about its storage are dropped.
_DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 33432, *range(0x9C9B, 0x9CA0))
_SUB_DIRECTORIES = (0x8769, 0x8825)  # the photograph's data, and where it was taken
_OF_THE_STORAGE = {0xA002, 0xA003, 0xA005}  # width, height, and a pointer into the old file

# XMP attributes that would turn the picture again, or state its old size.
_XMP_STORAGE = re.compile(
    rb"\s(?:tiff:Orientation|tiff:Image(?:Width|Length)|exif:Pixel[XY]Dimension)=\"[^\"]*\""
    rb"|<(tiff:Orientation|tiff:Image(?:Width|Length)|exif:Pixel[XY]Dimension)>[^<]*</\1>"
)

_HELD: dict[str, frozenset[str]] = {
    "PNG": frozenset({"transfer", "chromaticities", "density", "texts", "exif", "xmp"}),
    "JPEG": frozenset({"density", "exif", "xmp"}),
    "WEBP": frozenset({"exif", "xmp"}),
    "TIFF": frozenset({"density", "exif", "xmp"}),
}


@dataclass(frozen=True)
class Metadata:
    """The metadata of a picture file, without the colour profile.

    Attributes:
        gamma: PNG's gAMA: 100,000 times the exponent from light to samples, 45,455 for sRGB.
        chromaticities: The 32 bytes of PNG's cHRM.
        intent: PNG's sRGB: the rendering intent, 0 to 3; the pixels are sRGB.
        cicp: PNG's cICP: primaries, transfer, matrix and range, a byte each (ITU-T H.273).
        density: Pixels per metre along x and along y.
        texts: Keywords and texts of a PNG.
        exif: A TIFF structure without orientation, sizes and thumbnail.
        xmp: An XMP packet, without orientation and sizes.
    """

    gamma: int | None = None
    chromaticities: bytes | None = None
    intent: int | None = None
    cicp: bytes | None = None
    density: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    exif: bytes | None = None
    xmp: bytes | None = None

    def enlarged(self, scale: int) -> Metadata:
        """Return the metadata of the picture enlarged ``scale`` times, printed at the same size."""
        if self.density is None:
            return self
        return replace(self, density=(self.density[0] * scale, self.density[1] * scale))

    def transfer(self, icc: bytes | None) -> str | None:
        """Return a transfer function other than sRGB's that only PNG can store, or None.

        Args:
            icc: The colour profile, which defines the transfer function in every format.
        """
        if self.cicp is not None:
            return None if self.cicp[1] in _SRGB_TRANSFERS else f"cICP transfer {self.cicp[1]}"
        if icc is not None or self.intent is not None:
            return None
        if self.gamma is None or self.gamma in _SRGB_GAMMA:
            return None
        return f"gAMA {self.gamma / 100_000:g}"

    def left_out(self, kind: str, icc: bytes | None) -> list[str]:
        """Return names of the metadata a format cannot hold; without ``transfer``."""
        said = {
            "chromaticities": self.chromaticities and icc is None and self.intent is None,
            "density": self.density,
            "texts": self.texts,
            "exif": self.exif,
            "xmp": self.xmp,
        }
        names = {
            "chromaticities": "chromaticities",
            "density": "pixel density",
            "texts": f"{len(self.texts)} texts",
            "exif": "EXIF",
            "xmp": "XMP",
        }
        return [names[one] for one, found in said.items() if found and one not in _HELD[kind]]

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch."""
        if self.density is None:
            return None
        return self.density[0] * _METRES_PER_INCH, self.density[1] * _METRES_PER_INCH


NOTHING_SAID = Metadata()


def metadata_of(image: Image.Image) -> Metadata:
    """Return the metadata of a JPEG, WebP or TIFF file that Pillow has opened."""
    dpi = image.info.get("dpi")
    try:
        density = None if dpi is None else tuple(float(one) / _METRES_PER_INCH for one in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        density = None
    return Metadata(
        density=density if density and len(density) == 2 and min(density) > 0 else None,
        exif=descriptive_exif(image.getexif()),
        xmp=without_storage(image.info.get("xmp")),
    )


def descriptive_exif(exif: Image.Exif) -> bytes | None:
    """Return the EXIF data about the photograph, without the data about its file.

    Returns:
        A TIFF structure; None if there is no such data or the data is damaged.
    """
    kept = Image.Exif()
    try:
        for tag in _DESCRIPTIVE_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        for tag in _SUB_DIRECTORIES:
            directory: dict[int, Any] = dict(exif.get_ifd(tag))
            if found := {k: v for k, v in directory.items() if k not in _OF_THE_STORAGE}:
                kept[tag] = found
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
    except Exception:  # the pixels are readable even if Pillow cannot read the EXIF data
        return None


def without_storage(xmp: bytes | str | None) -> bytes | None:
    """Return an XMP packet without orientation and sizes."""
    if not xmp:
        return None
    packet = xmp.encode() if isinstance(xmp, str) else xmp
    return _XMP_STORAGE.sub(b"", packet.rstrip(b"\0"))
