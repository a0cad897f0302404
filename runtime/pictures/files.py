"""Reading and writing picture files: PNG, JPEG, WebP and TIFF.

What a person would notice is kept: grey stays grey, transparency, 16 bits per sample, the colour
profile, the orientation that EXIF asks for, and what the file says beside its pixels
(``runtime.pictures.metadata``). CMYK becomes RGB.

PNG and TIFF are written in the memory of a few rows, JPEG in that of the picture itself. WebP's
encoder takes several times that.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from runtime.atomic import replacing
from runtime.errors import UserError, first_line
from runtime.pictures import sixteen_bit
from runtime.pictures.metadata import NOTHING_SAID, Metadata, metadata_of
from runtime.pictures.png import write_png
from runtime.pictures.png_chunks import SIGNATURE, Chunks, take_apart
from runtime.pictures.samples import BAND_ROWS, Samples, bands, with_padding
from runtime.pictures.tiff import LARGEST_TIFF, write_tiff

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_LARGEST = 178_000_000  # pixels; beyond, a small file may well be meant to fill the memory
_QUALITY = 95  # of JPEG and WebP
_LONGEST_SEGMENT = 65_000  # bytes of EXIF or XMP in a JPEG, a little less than what fits
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "PNG": 2**31 - 1, "TIFF": 2**31 - 1}
_ORIENTATION = 0x0112  # EXIF tag
_SUBFILE_TYPE, _SAMPLE_FORMAT = 254, 339  # TIFF tags
_THUMBNAIL_OR_MASK, _UNSIGNED = 0b101, 1
_GREY_MODES = ("1", "L", "LA", "La")
_OPAQUE_MODES = ("P", "RGB", "RGBX", "YCbCr", "CMYK", "1", "L")
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # between the levels of 2 and of 4 bits
_ALPHA_MODES = ("PA", "RGBA", "RGBa", "LA", "La")


@dataclass(frozen=True, eq=False)
class PictureFile:
    """A picture as its file holds it.

    Attributes:
        pixels: H × W × 3, RGB, uint8 or uint16; three equal channels if grey.
        alpha: H × W × 1 of the same type, or None where all is opaque.
        grey: Whether the file is grey and is to be written so.
        icc: Colour profile of the pixels; None stands for what the metadata says, else sRGB.
        metadata: What the file says beside pixels and profile.
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
        UserError: If it is missing, empty, damaged, no picture, animated, larger than 178
            megapixels, or of a pixel format that cannot be read exactly.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, expected a picture file")
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path}: is no regular file; save what it brings as a file first")
        if size == 0:
            raise UserError(f"{path}: is empty; fetch the file again")
        with warnings.catch_warnings():
            # The limit is checked below, with a message that says what to do.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # broken EXIF leaves a picture whole
            chunks = _png_chunks(path)

            @contextmanager
            def opened() -> Iterator[ImageFile]:
                # A file that Pillow opens by its name may be mapped, with the sides of a turned
                # TIFF exchanged.
                stream: BinaryIO = path.open("rb") if chunks is None else io.BytesIO(chunks.pixels)
                with stream, Image.open(stream, formats=_FORMATS) as image:
                    _choose_page(path, image)
                    yield image

            return _decoded(path, opened, chunks)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; correct the path") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path}: is no PNG, JPEG, WebP or TIFF picture, or a damaged one; convert it or fetch "
            "it again"
        ) from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; change its permissions") from error
    except MemoryError as error:
        raise UserError(f"{path}: too large for the memory; cut it into smaller ones") from error
    except OSError as error:
        if error.errno is None:  # the decoder's, not the file system's
            raise _damaged(path, error) from error
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); correct the path or copy it elsewhere"
        ) from error
    except Exception as error:  # decoders meet arbitrary bytes, and raise whatever they trip over
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged or truncated ({first_line(error)}); fetch the file again")


def picture_paths(folder: Path) -> list[Path]:
    """Return the picture files directly in a folder, by their suffixes, sorted by name.

    Hidden files are passed over: macOS leaves ``._NAME.png``, which is no picture, beside NAME.png.

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
    """Tell whether a file is a picture by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and not path.is_dir()


def write_picture(path: str | os.PathLike[str], picture: PictureFile) -> None:
    """Write a picture in the format of the suffix; JPEG and WebP with quality 95.

    Args:
        path: The file to create or replace, atomically.
        picture: What to write.

    Raises:
        UserError: If the format cannot hold the picture, or the file cannot be written.
    """
    path = Path(path)
    check_format(path, picture)
    with replacing(path) as temporary:
        encode_picture(temporary, picture)


def check_format(path: Path, picture: PictureFile, scale: int = 1) -> None:
    """Check that a file of this suffix can hold the picture once enlarged, before any work.

    Raises:
        UserError: If the suffix is unknown, or its format has no transparency, no 16-bit samples,
            no pictures as large, or no word for linear light and HDR.
    """
    kind = picture_format(path)
    if kind == "JPEG" and picture.alpha is not None:
        raise UserError(f"{path}: JPEG has no transparency; choose .png, .webp or .tif")
    if kind != "PNG" and (transfer := picture.metadata.transfer(picture.icc)) is not None:
        raise UserError(
            f"{path}: {kind} cannot say that the samples are not those of sRGB ({transfer}), and "
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
    # Into memory first: on a full disk Pillow takes what it could write to a file for all of it.
    encoded = io.BytesIO()
    try:
        image.save(encoded, kind, quality=_QUALITY, icc_profile=picture.icc, **subsampling, **said)
    except ValueError as error:  # libwebp's limits on large pictures show only when it encodes
        raise UserError(
            f"{path.name}: {kind} cannot hold this picture ({first_line(error)}); choose .png"
        ) from error
    path.write_bytes(encoded.getbuffer())


def left_out(path: Path, picture: PictureFile) -> str | None:
    """Return a line on what the format of a file cannot hold of a picture's metadata, or None."""
    kind = picture_format(path)
    names = picture.metadata.left_out(kind, picture.icc)
    metadata = picture.metadata
    if kind == "JPEG":
        too_long = {"EXIF": metadata.exif, "XMP": metadata.xmp}
        names += [name for name, data in too_long.items() if len(data or b"") > _LONGEST_SEGMENT]
    return f"{path}: {kind} cannot hold {', '.join(names)}; left out" if names else None


def _pillow_options(kind: str, metadata: Metadata) -> dict[str, Any]:
    """Return the metadata as Pillow's encoders of JPEG and WebP take it."""
    longest = _LONGEST_SEGMENT if kind == "JPEG" else 2**31
    options: dict[str, Any] = {}
    if metadata.exif and len(metadata.exif) <= longest:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.xmp and len(metadata.xmp) <= longest:
        options["xmp"] = metadata.xmp
    if kind == "JPEG" and metadata.dpi is not None:
        options["dpi"] = metadata.dpi
    return options


def _png_chunks(path: Path) -> Chunks | None:
    """Return what a PNG file says; None for files of other formats."""
    with path.open("rb") as stream:
        if stream.read(len(SIGNATURE)) != SIGNATURE:
            return None
        stream.seek(0)
        return take_apart(stream.read())


def _choose_page(path: Path, image: ImageFile) -> None:
    """Turn to the only picture of a file that may hold thumbnails and masks beside it."""
    if image.width * image.height > _LARGEST:
        raise _too_large(path)
    # Phones add a second picture (depth, brightness) to JPEG files; the first is the photograph.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    pages = list(range(frames))
    if frames > 1 and isinstance(image, TiffImagePlugin.TiffImageFile):
        pages = [one for one in pages if not _subfile_type(image, one) & _THUMBNAIL_OR_MASK]
    if len(pages) != 1:
        raise UserError(
            f"{path}: holds {frames} pictures (animation or pages); "
            "save the one to restore as a file of its own"
        )
    if frames > 1:
        image.seek(pages[0])
        if image.width * image.height > _LARGEST:
            raise _too_large(path)


def _subfile_type(image: TiffImagePlugin.TiffImageFile, page: int) -> int:
    image.seek(page)
    return int(image.tag_v2.get(_SUBFILE_TYPE, 0))


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path}: has more than {_LARGEST // 10**6} megapixels; cut it into smaller pictures"
    )


def _decoded(
    path: Path, opened: Callable[[], AbstractContextManager[ImageFile]], chunks: Chunks | None
) -> PictureFile:
    with opened() as image:
        icc = chunks.icc if chunks else image.info.get("icc_profile") or None
        if image.mode == "CMYK" and not sixteen_bit.has_sixteen_bits(image):
            samples: Samples = _eight_bit_samples(_rgb_from_cmyk(image))
            icc = None
        else:
            samples = _samples(path, image, opened)
        # Pillow turns TIFFs when it decodes them, and then says so.
        orientation = chunks.orientation if chunks else image.getexif().get(_ORIENTATION, 1)
        metadata = chunks.metadata if chunks else metadata_of(image)
    samples = _upright(samples, orientation)
    colours = samples.shape[2] - 1 + samples.shape[2] % 2  # 1 or 3, alpha being the even one
    pixels, grey = samples[..., :colours], colours == 1
    alpha = samples[..., colours:] if colours < samples.shape[2] else None
    pixels = np.repeat(pixels, 3, axis=2) if grey else pixels
    return PictureFile(pixels, alpha, grey, icc, metadata)


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
        # Pillow spreads the samples over 0 to 255, but not the one that is transparent.
        image.info["transparency"] *= _GREY_STEPS[sixteen_bit.unpacker(image)]
    if sixteen_bit.has_sixteen_bits(image):
        return _with_transparent_colour(sixteen_bit.read_samples(image, path, opened), image)
    if image.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise UserError(
            f"{path}: pixel format {image.mode} cannot be read; save it as 8- or 16-bit RGB"
        )
    return _eight_bit_samples(image)


def _rgb_from_cmyk(image: Image.Image) -> Image.Image:
    """Convert through the embedded profile; without a sound one, by subtraction."""
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
    """Turn the one colour that a PNG may name transparent into an alpha channel."""
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


def _as_image(pixels: Samples, alpha: Samples | None) -> Image.Image:
    """Make a Pillow image of 8-bit samples, without a copy where their memory allows it."""
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
