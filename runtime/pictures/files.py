"""Reading and writing picture files: PNG, JPEG, WebP and TIFF.

Kept are grey as grey, transparency, 16 bits per sample, the colour profile, the orientation in EXIF
(applied to the pixels), and metadata (``runtime.pictures.metadata``). CMYK becomes RGB.

Writing PNG and TIFF takes the memory of a few rows, JPEG that of one picture, WebP several times
that of the picture.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from runtime.atomic import replacing
from runtime.errors import UserError, first_line
from runtime.native_messages import kept_messages
from runtime.pictures.decoding import Decoded, decode, too_large
from runtime.pictures.metadata import NOTHING_SAID, Metadata
from runtime.pictures.png import write_png
from runtime.pictures.samples import BAND_ROWS, Samples, bands, with_padding
from runtime.pictures.tiff import LARGEST_TIFF, write_tiff

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})

_QUALITY = 95  # of JPEG and WebP
_LONGEST_SEGMENT = 65_000  # bytes of EXIF or XMP in a JPEG, a little below the format's limit
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "PNG": 2**31 - 1, "TIFF": 2**31 - 1}


@dataclass(frozen=True, eq=False)
class PictureFile:
    """A picture as its file holds it.

    Attributes:
        pixels: H × W × 3, RGB, uint8 or uint16; three equal channels if grey.
        alpha: H × W × 1 of the same type, or None if the picture is opaque.
        grey: Whether the file is grey and is written as grey.
        icc: Colour profile of the pixels; None for the colour space in the metadata, else sRGB.
        metadata: Metadata without the profile.
    """

    pixels: Samples
    alpha: Samples | None = None
    grey: bool = False
    icc: bytes | None = None
    metadata: Metadata = NOTHING_SAID


def read_picture(path: str | os.PathLike[str]) -> PictureFile:
    """Read a picture, upright.

    Args:
        path: A PNG, JPEG, WebP or TIFF file, known by its content.

    Raises:
        UserError: If the file is missing, empty, damaged, not a picture, animated, larger than 178
            megapixels, or of a pixel format that cannot be read exactly.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, expected a picture file")
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path}: is not a regular file; save its content as a file first")
        if size == 0:
            raise UserError(f"{path}: is empty; fetch the file again")
        with warnings.catch_warnings():
            # The limit is checked below, with a message that says what to do.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # broken EXIF leaves a picture whole
            decoded = _decoded(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; correct the path") from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path}: is not a PNG, JPEG, WebP or TIFF picture, or is damaged; convert it or fetch "
            "it again"
        ) from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; change its permissions") from error
    except MemoryError as error:
        raise UserError(f"{path}: too large for the memory; cut it into smaller ones") from error
    except OSError as error:
        if error.errno is None:  # raised by the decoder, not by the file system
            raise _damaged(path, error) from error
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); correct the path or copy it elsewhere"
        ) from error
    except Exception as error:  # decoders raise arbitrary exceptions for arbitrary bytes
        raise _damaged(path, error) from error
    samples = decoded.samples
    colours = samples.shape[2] - 1 + samples.shape[2] % 2  # 1 or 3; alpha makes the count even
    pixels, grey = samples[..., :colours], colours == 1
    alpha = samples[..., colours:] if colours < samples.shape[2] else None
    pixels = np.repeat(pixels, 3, axis=2) if grey else pixels
    return PictureFile(pixels, alpha, grey, decoded.icc, decoded.metadata)


def _decoded(path: Path) -> Decoded:
    """Decode a picture, and keep what libtiff says from the terminal: errors get it instead."""
    with path.open("rb") as stream:
        is_tiff = stream.read(2) in (b"II", b"MM")
    if not is_tiff:
        return decode(path)
    said: list[str] = []
    try:
        with kept_messages() as said:
            return decode(path)
    except OSError as error:
        if error.errno is None and said:
            raise OSError(f"{first_line(error)}: {said[0].rstrip('.')}") from error
        raise


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged or truncated ({first_line(error)}); fetch the file again")


def picture_paths(folder: Path) -> list[Path]:
    """Return the picture files directly in a folder, by their suffixes, sorted by name.

    Hidden files are skipped: macOS leaves ``._NAME.png``, which is not a picture, beside NAME.png.

    Raises:
        UserError: If the folder does not exist or holds no picture.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of pictures")
    found = sorted(one for one in folder.iterdir() if _is_shown(one) and has_picture_suffix(one))
    if not found:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise UserError(f"{folder}: holds no pictures ({known}); choose another folder")
    return found


def has_picture_suffix(path: Path) -> bool:
    """Tell whether a file's suffix is that of a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and not path.is_dir()


def write_picture(path: str | os.PathLike[str], picture: PictureFile) -> None:
    """Write a picture in the format of the suffix; JPEG and WebP with quality 95.

    Args:
        path: The file to create or replace, atomically.
        picture: The picture.

    Raises:
        UserError: If the format cannot hold the picture, or the file cannot be written.
    """
    path = Path(path)
    check_format(path, picture)
    with replacing(path) as temporary:
        encode_picture(temporary, picture)


def check_format(path: Path, picture: PictureFile, scale: int = 1) -> None:
    """Check that a file of this suffix can hold the picture enlarged ``scale`` times.

    Raises:
        UserError: If the suffix is unknown, or its format cannot hold the picture's transparency,
            16-bit samples, size, or transfer function (linear light, HDR).
    """
    kind = picture_format(path)
    if kind == "JPEG" and picture.alpha is not None:
        raise UserError(f"{path}: JPEG has no transparency; choose .png, .webp or .tif")
    if kind != "PNG" and (transfer := picture.metadata.transfer(picture.icc)) is not None:
        raise UserError(
            f"{path}: {kind} cannot store a transfer function other than sRGB's ({transfer}), and "
            "the picture would look wrong; choose .png"
        )
    if kind in ("JPEG", "WEBP") and picture.pixels.dtype == np.uint16:
        raise UserError(f"{path}: {kind} has 8 bits per sample, not 16; choose .png or .tif")
    height, width = (scale * extent for extent in picture.pixels.shape[:2])
    samples = (1 if picture.grey else 3) + (picture.alpha is not None)
    size = height * width * samples * picture.pixels.dtype.itemsize
    if max(height, width) > _LONGEST_SIDE[kind] or (kind == "TIFF" and size > LARGEST_TIFF):
        raise UserError(f"{path}: {width}×{height} pixels are too many for {kind}; choose .png")


def picture_format(path: Path) -> str:
    """Return the format that a file's suffix stands for: PNG, JPEG, WEBP or TIFF.

    Raises:
        UserError: If the suffix is none of ``PICTURE_SUFFIXES``.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise UserError(f"{path}: unknown picture suffix '{suffix}'; choose one of {known}")
    return {"jpg": "JPEG", "tif": "TIFF"}.get(suffix[1:4], suffix[1:].upper())


def encode_picture(path: Path, picture: PictureFile) -> None:
    """Write a picture that ``check_format`` has passed to a new file, not atomically."""
    pixels = picture.pixels[..., :1] if picture.grey else picture.pixels
    kind = picture_format(path)
    if kind in ("PNG", "TIFF"):
        write = write_png if kind == "PNG" else write_tiff
        with path.open("wb") as stream:
            write(stream, pixels, picture.alpha, picture.icc, picture.metadata)
        return
    said = _pillow_options(kind, picture.metadata)
    subsampling = {"subsampling": "4:4:4"} if kind == "JPEG" else {}
    image = _as_image(pixels, picture.alpha)
    # Into memory first: Pillow ignores that a full disk cut its file short.
    encoded = io.BytesIO()
    try:
        image.save(encoded, kind, quality=_QUALITY, icc_profile=picture.icc, **subsampling, **said)
    except ValueError as error:  # libwebp's limits on large pictures show only when it encodes
        raise UserError(
            f"{path.name}: {kind} cannot hold this picture ({first_line(error)}); choose .png"
        ) from error
    path.write_bytes(encoded.getbuffer())


def left_out(path: Path, picture: PictureFile) -> str | None:
    """Return a line that lists the metadata a file's format cannot hold, or None."""
    kind = picture_format(path)
    names = picture.metadata.left_out(kind, picture.icc)
    metadata = picture.metadata
    if kind == "JPEG":
        too_long = {"EXIF": metadata.exif, "XMP": metadata.xmp}
        names += [name for name, data in too_long.items() if len(data or b"") > _LONGEST_SEGMENT]
    return f"{path}: {kind} cannot hold {', '.join(names)}; left out" if names else None


def _pillow_options(kind: str, metadata: Metadata) -> dict[str, Any]:
    """Return the metadata as arguments of Pillow's encoders of JPEG and WebP."""
    longest = _LONGEST_SEGMENT if kind == "JPEG" else 2**31
    options: dict[str, Any] = {}
    if metadata.exif and len(metadata.exif) <= longest:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.xmp and len(metadata.xmp) <= longest:
        options["xmp"] = metadata.xmp
    if kind == "JPEG" and metadata.dpi is not None:
        options["dpi"] = metadata.dpi
    return options


def _as_image(pixels: Samples, alpha: Samples | None) -> Image.Image:
    """Make a Pillow image of 8-bit samples, without a copy if their memory is padded."""
    height, width, colours = pixels.shape
    memory = with_padding(pixels)
    if memory is not None and alpha is None:
        return Image.frombuffer("RGBX", (width, height), memory, "raw", "RGBX", 0, 1)
    mode = ("L" if colours == 1 else "RGB") + ("" if alpha is None else "A")
    image = Image.new(mode, (width, height))
    for number, band in enumerate(bands(pixels, alpha)):
        image.paste(
            Image.fromarray(band.squeeze(2) if mode == "L" else band), (0, number * BAND_ROWS)
        )
    return image
