"""Decoding PNG, JPEG, WebP and TIFF files to 8- or 16-bit samples, upright."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin
from PIL.ImageFile import ImageFile

from runtime.errors import UserError
from runtime.pictures import sixteen_bit
from runtime.pictures.metadata import Metadata, metadata_of
from runtime.pictures.png_chunks import SIGNATURE, Chunks, take_apart
from runtime.pictures.samples import BAND_ROWS, Samples

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_LARGEST = 178_000_000  # pixels; a larger picture may be an attack on the memory
_ORIENTATION = 0x0112  # EXIF tag
_SUBFILE_TYPE, _SAMPLE_FORMAT = 254, 339  # TIFF tags
_THUMBNAIL_OR_MASK, _UNSIGNED = 0b101, 1
_GREY_MODES = ("1", "L", "LA", "La")
_OPAQUE_MODES = ("P", "RGB", "RGBX", "YCbCr", "CMYK", "1", "L")
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # between the levels of 2 and of 4 bits
_ALPHA_MODES = ("PA", "RGBA", "RGBa", "LA", "La")


@dataclass(frozen=True, eq=False)
class Decoded:
    """The decoded content of a picture file.

    Attributes:
        samples: H × W × C, uint8 or uint16: grey, grey and alpha, RGB, or RGB and alpha.
        icc: Colour profile of the samples, or None.
        metadata: Metadata without the profile.
    """

    samples: Samples
    icc: bytes | None
    metadata: Metadata


def decode(path: Path) -> Decoded:
    """Decode a picture file, known by its content.

    Raises:
        UserError: If the picture is animated, too large, or of a pixel format that cannot be read
            exactly.
        OSError: If the file cannot be opened. Pillow raises further exceptions for damaged files.
    """
    chunks = _png_chunks(path)

    @contextmanager
    def opened() -> Iterator[ImageFile]:
        # Opened as a stream: Pillow may map a file opened by name, and then exchanges height and
        # width of a turned TIFF.
        stream: BinaryIO = path.open("rb") if chunks is None else io.BytesIO(chunks.pixels)
        with stream, Image.open(stream, formats=_FORMATS) as image:
            _choose_page(path, image)
            yield image

    with opened() as image:
        icc = chunks.icc if chunks else image.info.get("icc_profile") or None
        if image.mode == "CMYK" and not sixteen_bit.has_sixteen_bits(image):
            samples: Samples = _eight_bit_samples(_rgb_from_cmyk(image))
            icc = None
        else:
            samples = _samples(path, image, opened)
        # Pillow turns TIFFs when it decodes them, and then updates the orientation.
        orientation = chunks.orientation if chunks else image.getexif().get(_ORIENTATION, 1)
        metadata = chunks.metadata if chunks else metadata_of(image)
    return Decoded(_upright(samples, orientation), icc, metadata)


def too_large(path: Path) -> UserError:
    """Return the error for a picture with more than ``_LARGEST`` pixels."""
    return UserError(
        f"{path}: has more than {_LARGEST // 10**6} megapixels; cut it into smaller pictures"
    )


def _png_chunks(path: Path) -> Chunks | None:
    """Return the chunks of a PNG file; None for files of other formats."""
    with path.open("rb") as stream:
        if stream.read(len(SIGNATURE)) != SIGNATURE:
            return None
        stream.seek(0)
        return take_apart(stream.read())


def _choose_page(path: Path, image: ImageFile) -> None:
    """Seek to the only picture of a file, which may also hold thumbnails and masks."""
    if image.width * image.height > _LARGEST:
        raise too_large(path)
    # Phones add a second picture (depth, brightness) to JPEG files; the first is the photograph.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    pages = list(range(frames))
    if frames > 1 and isinstance(image, TiffImagePlugin.TiffImageFile):
        pages = [one for one in pages if not _subfile_type(image, one) & _THUMBNAIL_OR_MASK]
    if len(pages) != 1:
        raise UserError(
            f"{path}: holds {frames} pictures (animation or pages); "
            "save the picture to restore as a separate file"
        )
    if frames > 1:
        image.seek(pages[0])
        if image.width * image.height > _LARGEST:
            raise too_large(path)


def _subfile_type(image: TiffImagePlugin.TiffImageFile, page: int) -> int:
    image.seek(page)
    return int(image.tag_v2.get(_SUBFILE_TYPE, 0))


def _samples(
    path: Path, image: ImageFile, opened: Callable[[], AbstractContextManager[ImageFile]]
) -> Samples:
    """Return the samples of a picture, H × W × C, as 8 or 16 bits."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        formats = set(image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
        if formats != {_UNSIGNED}:
            raise UserError(
                f"{path}: its samples are signed or floating-point numbers (SampleFormat "
                f"{min(formats)}); save it as unsigned 8 or 16 bits per sample"
            )
    if "transparency" in image.info and sixteen_bit.unpacker(image) in _GREY_STEPS:
        # Pillow scales the samples to 0 to 255, but not the value that is transparent.
        image.info["transparency"] *= _GREY_STEPS[sixteen_bit.unpacker(image)]
    if sixteen_bit.has_sixteen_bits(image):
        return _with_transparent_colour(sixteen_bit.read_samples(image, path, opened), image)
    if image.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise UserError(
            f"{path}: pixel format {image.mode} cannot be read; save it as 8- or 16-bit RGB"
        )
    return _eight_bit_samples(image)


def _rgb_from_cmyk(image: Image.Image) -> Image.Image:
    """Convert through the embedded profile; without a valid profile, by subtraction."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def _eight_bit_samples(image: Image.Image) -> NDArray[np.uint8]:
    has_alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    mode = ("L" if image.mode in _GREY_MODES else "RGB") + ("A" if has_alpha else "")
    if image.mode != mode:
        image = image.convert(mode)
    image.load()
    samples = np.empty((image.height, image.width, len(mode)), np.uint8)
    for top in range(0, image.height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, image.height)
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        samples[top:bottom] = band.reshape(bottom - top, image.width, len(mode))
    return samples


def _with_transparent_colour(samples: NDArray[np.uint16], image: Image.Image) -> NDArray[np.uint16]:
    """Turn the transparent colour of a PNG, if any, into an alpha channel."""
    colour: Any = image.info.get("transparency")
    if colour is None:
        return samples
    transparent = np.all(samples == np.asarray(colour, np.uint16), axis=2, keepdims=True)
    alpha = np.where(transparent, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return np.concatenate([samples, alpha], axis=2)


def _upright(samples: Samples, orientation: int) -> Samples:
    """Apply an EXIF orientation (TIFF 6.0, tag 274), 1 to 8; any other value means 1."""
    if orientation in (2, 4, 5, 7):
        samples = samples[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.rot90(samples, turns)
