"""Every kind of picture file is read correctly or refused, and written as the same kind."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from runtime.errors import UserError
from runtime.pictures.files import (
    PICTURE_SUFFIXES,
    PictureFile,
    check_format,
    read_picture,
    write_picture,
)
from runtime.pictures.samples import empty_padded

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    return random.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def _smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x + y, 255 - x, x + 2 * y], axis=2).clip(0, 255).astype(np.uint8)


# Reading


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_rgb_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    pixels = _noise(9, 7, 3)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)

    picture = read_picture(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(picture.pixels, pixels)
    assert (picture.alpha, picture.grey, picture.icc) == (None, False, None)
    assert picture.pixels.flags.writeable


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path: Path) -> None:
    Image.fromarray(_smooth(30, 200)).save(tmp_path / "a.jpg", quality=90)

    expected = np.asarray(Image.open(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg").pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(_noise(70, 7)).convert(mode)
    grey.save(tmp_path / "a.png")

    picture = read_picture(tmp_path / "a.png")

    assert picture.grey
    expected = np.asarray(grey.convert("L"))[..., np.newaxis].repeat(3, axis=2)
    np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize(("mode", "colours"), [("LA", 1), ("RGBA", 3)])
def test_alpha_is_kept_apart(tmp_path: Path, mode: str, colours: int) -> None:
    samples = _noise(9, 7, colours + 1)
    Image.fromarray(samples, mode).save(tmp_path / "a.png")

    picture = read_picture(tmp_path / "a.png")

    assert picture.grey == (colours == 1)
    np.testing.assert_array_equal(picture.pixels[..., :colours], samples[..., :colours])
    np.testing.assert_array_equal(picture.alpha, samples[..., colours:])


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "transparent.png", transparency=bytes([255, 40]))

    opaque = read_picture(tmp_path / "opaque.png")
    transparent = read_picture(tmp_path / "transparent.png")

    assert opaque.pixels.tolist() == transparent.pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert opaque.alpha is None
    assert transparent.alpha.ravel().tolist() == [255, 40]


def test_one_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]])).save(
        tmp_path / "rgb.png", transparency=(4, 5, 6)
    )
    Image.fromarray(np.uint8([[7, 9]])).save(tmp_path / "grey.png", transparency=7)

    assert read_picture(tmp_path / "rgb.png").alpha.ravel().tolist() == [255, 0]
    grey = read_picture(tmp_path / "grey.png")
    assert grey.grey
    assert grey.alpha.ravel().tolist() == [0, 255]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_grey_of_few_bits_becomes_alpha(tmp_path: Path, bits: int) -> None:
    levels = range(2)  # 1 is the transparent one
    row = sum(level << 8 - bits * (place + 1) for place, level in enumerate(levels))
    header = struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", struct.pack(">H", 1))]
    parts += [(b"IDAT", zlib.compress(bytes([0, row]))), (b"IEND", b"")]
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts))

    picture = read_picture(path)
    assert picture.pixels[0, :, 0].tolist() == [0, 255 // (2**bits - 1)]
    assert picture.alpha.ravel().tolist() == [255, 0]


def test_broken_exif_leaves_a_picture_whole_and_silent(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 3
    Image.fromarray(_smooth(8, 8)).save(tmp_path / "a.png", exif=broken)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, _smooth(8, 8))
    assert not recwarn.list


def test_pipes_and_too_little_memory_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="is not a regular file"):
        read_picture("/dev/null")
    Image.fromarray(_smooth(8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(np, "empty", _without_memory)
    with pytest.raises(UserError, match="too large for the memory"):
        read_picture(tmp_path / "a.png")


def _without_memory(*arguments: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_smooth(24, 40)).save(path, exif=exif)

    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(read_picture(path).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_exif_orientation_of_uncompressed_tiffs_is_applied(
    tmp_path: Path, orientation: int, mode: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray(_noise(5, 7)[..., 0])
    stored = Image.fromarray(_noise(5, 7, dtype=np.uint16)[..., 0])
    image = stored if mode == "I;16" else grey.convert(mode)
    image.save(tmp_path / "plain.tif")
    image.save(tmp_path / "turned.tif", exif=exif)

    plain, turned = (read_picture(tmp_path / f"{name}.tif") for name in ("plain", "turned"))
    mirrored = plain.pixels[:, ::-1] if orientation in (2, 4, 5, 7) else plain.pixels
    quarters = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    np.testing.assert_array_equal(turned.pixels, np.rot90(mirrored, quarters))


def test_orientation_of_alpha_and_of_sixteen_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(_noise(3, 5, 4), "RGBA").save(tmp_path / "alpha.png", exif=exif)
    deep = _noise(3, 5, 3, dtype=np.uint16)
    tag = (274, "H", 1, 6, True)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extratags=[tag])

    alpha = read_picture(tmp_path / "alpha.png").alpha
    np.testing.assert_array_equal(alpha, np.rot90(_noise(3, 5, 4)[..., 3:], -1))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.tif").pixels, np.rot90(deep, -1))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_icc_profile_survives_reading_and_writing(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(_smooth(8, 8)).save(tmp_path / f"a{suffix}", icc_profile=SRGB)

    picture = read_picture(tmp_path / f"a{suffix}")
    write_picture(tmp_path / f"b{suffix}", picture)

    assert picture.icc == SRGB
    assert Image.open(tmp_path / f"b{suffix}").info["icc_profile"] == SRGB


def test_cmyk_without_profile(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 0, 0)).save(tmp_path / "a.tif")

    picture = read_picture(tmp_path / "a.tif")

    assert picture.pixels[0, 0].tolist() == [255, 0, 255]
    assert picture.icc is None


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_through_its_profile(
    tmp_path: Path, suffix: str, icc_profile: Callable[..., bytes]
) -> None:
    # In this printing process paper is white and full cyan is a medium grey, L* = 50.
    profile = icc_profile(b"CMYK", {0b0000: (255, 128, 128), 0b1000: (128, 128, 128)})
    image = Image.new("CMYK", (16, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    image.save(tmp_path / f"a{suffix}", icc_profile=profile, quality=100)

    picture = read_picture(tmp_path / f"a{suffix}")

    np.testing.assert_allclose(picture.pixels[4, 2], 255, atol=2)
    # L* = 50.2 is 119.3 in sRGB (CIE 15 and IEC 61966-2-1).
    np.testing.assert_allclose(picture.pixels[4, 13], 119, atol=3)
    assert picture.icc is None


def test_cmyk_with_a_broken_profile_is_converted_plainly(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 0, 0)).save(tmp_path / "a.tif", icc_profile=b"broken")

    assert read_picture(tmp_path / "a.tif").pixels[0, 0].tolist() == [255, 0, 255]


def test_a_phones_photograph_with_a_second_picture_is_a_photograph(tmp_path: Path) -> None:
    first, second = Image.fromarray(_smooth(16, 16)), Image.new("RGB", (8, 8), "red")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert Image.open(tmp_path / "a.jpg").format == "MPO"

    assert read_picture(tmp_path / "a.jpg").pixels.shape == (16, 16, 3)


# 16 bits


def _chunk(kind: bytes, content: bytes) -> bytes:
    length, check = struct.pack(">I", len(content)), zlib.crc32(kind + content)
    return length + kind + content + struct.pack(">I", check)


def _deep_png(samples: np.ndarray, interlaced: bool = False, transparent: bytes = b"") -> bytes:
    """A 16-bit PNG without filters, as the specification's section 7 and 8 lay it out."""
    height, width, channels = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2),
                  (0, 1, 2, 2), (1, 0, 2, 1)]  # fmt: skip
    rows = [
        b"\0" + row.astype(">u2").tobytes()
        for top, left, down, right in passes
        for row in samples[top::down, left::right]
        if row.size
    ]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, int(interlaced))
    transparency = _chunk(b"tRNS", transparent) if transparent else b""
    return (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + transparency
            + _chunk(b"IDAT", zlib.compress(b"".join(rows))) + _chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_is_read_in_full(tmp_path: Path, channels: int, interlaced: bool) -> None:
    samples = _noise(11, 9, channels, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(_deep_png(samples, interlaced))

    picture = read_picture(tmp_path / "a.png")

    colours = 1 if channels < 3 else 3
    assert picture.pixels.dtype == np.uint16
    assert picture.grey == (colours == 1)
    np.testing.assert_array_equal(picture.pixels[..., :colours], samples[..., :colours])
    if channels in (2, 4):
        np.testing.assert_array_equal(picture.alpha, samples[..., -1:])
    else:
        assert picture.alpha is None


def test_sixteen_bit_transparent_colour_is_compared_in_full(tmp_path: Path) -> None:
    # The two pixels differ in a low byte only.
    samples = np.uint16([[[258, 513, 7], [258, 513, 8]]])
    (tmp_path / "a.png").write_bytes(
        _deep_png(samples, transparent=struct.pack(">3H", 258, 513, 8))
    )

    assert read_picture(tmp_path / "a.png").alpha.ravel().tolist() == [65535, 0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_tiff_is_read_in_full(
    tmp_path: Path, order: str, options: dict[str, object], channels: int
) -> None:
    samples = _noise(37, 41, channels, dtype=np.uint16)
    kind = "minisblack" if channels == 1 else "rgb"
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(
        tmp_path / "a.tif", samples.squeeze(), byteorder=order, photometric=kind,
        extrasamples=extra, **options,
    )  # fmt: skip

    picture = read_picture(tmp_path / "a.tif")

    colours = min(channels, 3)
    np.testing.assert_array_equal(picture.pixels[..., :colours], samples[..., :colours])
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, samples[..., 3:])


def test_white_is_zero_is_inverted(tmp_path: Path) -> None:
    samples = np.uint16([[0, 1000]])
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")

    assert read_picture(tmp_path / "a.tif").pixels[0, :, 0].tolist() == [65535, 64535]


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (_noise(3, 20, 20, dtype=np.uint16), {"planarconfig": "separate", "photometric": "rgb"}),
        (_noise(20, 20, 4, dtype=np.uint16), {"photometric": "separated"}),
        (
            _noise(20, 20, 4, dtype=np.uint16),
            {"photometric": "rgb", "extrasamples": ["assocalpha"]},
        ),
        (np.ones((20, 20), np.float32), {"photometric": "minisblack"}),
        (np.ones((20, 20), np.int16), {"photometric": "minisblack"}),
    ],
)
def test_layouts_that_would_be_read_wrong_are_refused(
    tmp_path: Path, samples: np.ndarray, options: dict[str, object]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples, **options)

    with pytest.raises(UserError, match=r"a\.tif: .*save it as"):
        read_picture(tmp_path / "a.tif")


# Damaged files, and files that are not pictures


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"hello, this is text", "is not a PNG, JPEG, WebP or TIFF"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a PNG"),
    ],
)
def test_files_that_are_no_pictures(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UserError, match=message):
        read_picture(tmp_path / name)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="a folder"):
        read_picture(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"x")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", denied)  # who runs tests as root may read every file
    with pytest.raises(UserError, match="change its permissions"):
        read_picture(tmp_path / "a.png")


def test_other_colour_spaces_are_refused(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="pixel format LAB cannot be read; save it as"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(_noise(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(UserError, match="damaged"):
        read_picture(path)


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "deep"]))
def test_damage_never_gives_anything_but_a_user_error(
    tmp_path: Path, data: st.DataObject, kind: str
) -> None:
    stream = io.BytesIO()
    if kind == "deep":
        stream.write(_deep_png(_noise(8, 8, 3, dtype=np.uint16)))
    else:
        Image.fromarray(_smooth(8, 8)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_picture(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert picture.pixels.shape[2] == 3


def test_animations_and_pages_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(_noise(8, 8 + seed, 3)[:, :8]) for seed in range(3)]
    for name in ("a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match="holds 3 pictures"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("width", [17_850, 40_000])
def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path, width: int) -> None:
    header = struct.pack(">IIBBBBB", width, 10_000, 8, 2, 0, 0, 0)
    content = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content + _chunk(b"IEND", b""))

    with pytest.raises(UserError, match="more than 178 megapixels; cut it"):
        read_picture(tmp_path / "a.png")


def test_a_wide_panorama_is_read_without_a_warning(tmp_path: Path) -> None:
    Image.new("L", (30_000, 3_100), 7).save(tmp_path / "a.png", compress_level=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(tmp_path / "a.png")

    assert picture.pixels.shape == (3_100, 30_000, 3)


# Writing


def _pictures() -> list[PictureFile]:
    pictures = []
    for dtype in (np.uint8, np.uint16):
        grey = _noise(70, 9, 1, dtype=dtype).repeat(3, axis=2)
        for pixels, is_grey in ((_noise(70, 9, 3, dtype=dtype), False), (grey, True)):
            for alpha in (None, _noise(70, 9, 1, dtype=dtype)):
                pictures.append(PictureFile(pixels, alpha, is_grey, SRGB))
    return pictures


def _readable_as_tiff(picture: PictureFile) -> bool:
    """Pillow reads no 16-bit grey TIFF with alpha; test_tiff.py reads it with tifffile."""
    return picture.pixels.dtype == np.uint8 or not picture.grey or picture.alpha is None


@pytest.mark.parametrize(
    ("suffix", "picture"),
    [(".png", picture) for picture in _pictures()]
    + [(".tif", picture) for picture in _pictures() if _readable_as_tiff(picture)],
)
def test_exact_formats_give_back_what_was_written(
    tmp_path: Path, suffix: str, picture: PictureFile
) -> None:
    write_picture(tmp_path / f"a{suffix}", picture)

    again = read_picture(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert (again.grey, again.icc) == (picture.grey, picture.icc)
    if picture.alpha is None:
        assert again.alpha is None
    else:
        np.testing.assert_array_equal(again.alpha, picture.alpha)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats_stay_close(tmp_path: Path, suffix: str, padded: bool) -> None:
    pixels = _smooth(80, 40)
    if padded:
        memory = empty_padded(80, 40)
        memory[:] = pixels
        pixels = memory
    write_picture(tmp_path / f"a{suffix}", PictureFile(pixels))

    again = read_picture(tmp_path / f"a{suffix}")

    assert not again.grey
    assert np.abs(again.pixels.astype(int) - pixels).mean() < 3


def test_a_part_of_padded_memory_is_written_as_that_part(tmp_path: Path) -> None:
    memory = empty_padded(40, 40)
    memory[:] = _smooth(40, 40)
    for name, part in {"a": memory[8:24], "b": memory[::2], "c": memory[:, 8:24]}.items():
        write_picture(tmp_path / f"{name}.jpg", PictureFile(part))
        again = read_picture(tmp_path / f"{name}.jpg").pixels
        assert np.abs(again.astype(int) - part).mean() < 4


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of POSIX")
@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES))
def test_a_file_that_does_not_fit_is_an_error_and_no_file(tmp_path: Path, suffix: str) -> None:
    import resource

    path, picture = tmp_path / f"a{suffix}", PictureFile(_noise(90, 80, 3))
    write_picture(path, picture)
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) - 1, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            write_picture(path, picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_jpeg_has_quality_95_and_full_chroma(tmp_path: Path) -> None:
    Image.fromarray(_smooth(16, 16)).save(tmp_path / "reference.jpg", quality=95)
    write_picture(tmp_path / "a.jpg", PictureFile(_smooth(16, 16)))

    written, reference = Image.open(tmp_path / "a.jpg"), Image.open(tmp_path / "reference.jpg")
    assert written.quantization == reference.quantization
    assert [layer[1:3] for layer in written.layer] == [(1, 1)] * 3


def test_grey_jpeg_stays_grey_and_webp_keeps_alpha(tmp_path: Path) -> None:
    grey = _smooth(20, 20)[..., :1].repeat(3, axis=2)
    write_picture(tmp_path / "a.jpg", PictureFile(grey, grey=True))
    alpha = _smooth(20, 20)[..., :1]
    write_picture(tmp_path / "a.webp", PictureFile(_smooth(20, 20), alpha))

    assert Image.open(tmp_path / "a.jpg").mode == "L"
    np.testing.assert_array_equal(read_picture(tmp_path / "a.webp").alpha, alpha)


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("a.gif", PictureFile(_noise(2, 2, 3)), r"unknown picture suffix '.gif'; .*\.jpeg, \.jpg"),
        ("a", PictureFile(_noise(2, 2, 3)), "unknown picture suffix ''"),
        ("a.jpg", PictureFile(_noise(2, 2, 3), _noise(2, 2, 1)), "no transparency; choose .png"),
        ("a.jpg", PictureFile(_noise(2, 2, 3, dtype=np.uint16)), "8 bits per sample"),
        ("a.webp", PictureFile(_noise(2, 2, 3, dtype=np.uint16)), "choose .png or .tif"),
        ("a.jpg", PictureFile(np.zeros((1, 65_501, 3), np.uint8)), "too many for JPEG"),
        ("a.webp", PictureFile(np.zeros((16_384, 1, 3), np.uint8)), "too many for WEBP"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_remedy(
    tmp_path: Path, name: str, picture: PictureFile, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_picture(tmp_path / name, picture)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_gives_up_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: object, **__: object) -> None:
        raise ValueError("encoding error 6")  # libwebp's partition overflow, as Pillow tells it

    monkeypatch.setattr(Image.Image, "save", overflow)
    with pytest.raises(UserError, match=r"a\.webp: WEBP cannot hold .*error 6\); choose \.png"):
        write_picture(tmp_path / "a.webp", PictureFile(_noise(2, 2, 3)))
    assert not list(tmp_path.iterdir())


def test_formats_are_checked_for_the_enlarged_picture() -> None:
    picture = PictureFile(np.zeros((1, 20_000, 3), np.uint8))
    check_format(Path("a.jpg"), picture, scale=3)
    with pytest.raises(UserError, match="80000×4 pixels are too many for JPEG"):
        check_format(Path("a.jpg"), picture, scale=4)
    wide = PictureFile(np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)))
    check_format(Path("a.png"), wide, scale=2)
    with pytest.raises(UserError, match="too many for TIFF"):
        check_format(Path("a.tif"), wide, scale=2)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_writing_replaces_whole_files_only(tmp_path: Path, name: str) -> None:
    resource = pytest.importorskip("resource")  # Windows has none
    path = tmp_path / name
    write_picture(path, PictureFile(_noise(4, 4, 3)))
    before = path.read_bytes()

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match="File too large"):
            write_picture(path, PictureFile(_noise(64, 64, 3)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_suffixes_cover_what_can_be_written(tmp_path: Path) -> None:
    for suffix in PICTURE_SUFFIXES:
        write_picture(tmp_path / f"a{suffix}", PictureFile(_smooth(8, 8)))
        assert read_picture(tmp_path / f"a{suffix}").pixels.shape == (8, 8, 3)
