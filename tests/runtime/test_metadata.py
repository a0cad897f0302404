"""Metadata of pictures survive in every format that can hold them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from runtime.errors import UserError
from runtime.pictures.files import PictureFile, check_format, left_out, read_picture, write_picture
from runtime.pictures.metadata import Metadata

PIXELS = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:title>Title</dc:title></x:xmpmeta>'


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(path: Path, *extra: bytes) -> Path:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 12, 8, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    parts = (header, *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def exif() -> Image.Exif:
    found = Image.Exif()
    found[271], found[0x0112] = "A camera", 6
    found[0x8769] = {0x829A: 0.01, 0xA002: 10, 0xA003: 12}
    found[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
    return found


def test_png_colour_chunks_come_back(tmp_path: Path) -> None:
    chromaticities = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    said = (
        chunk(b"cICP", bytes([9, 16, 0, 1])),
        chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"cHRM", chromaticities),
        chunk(b"pHYs", struct.pack(">IIB", 3937, 1969, 1)),
    )
    picture = read_picture(png(tmp_path / "a.png", *said))
    expected = Metadata(100_000, chromaticities, None, bytes([9, 16, 0, 1]), (3937.0, 1969.0))
    assert picture.metadata == expected
    np.testing.assert_array_equal(picture.pixels, PIXELS)

    write_picture(tmp_path / "b.png", picture)

    assert read_picture(tmp_path / "b.png").metadata == expected
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["gamma"] == 1.0
        assert image.info["chromaticity"][:2] == (0.3127, 0.329)
        assert image.info["dpi"] == pytest.approx((100, 50), abs=0.02)


def test_srgb_and_texts_come_back_as_pillow_reads_them(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Jürgen")
    info.add_itxt("Title", "日本", "ja", "タイトル")
    info.add_text("workflow", "x" * 5000, zip=True)
    info.add(b"sRGB", b"\1")
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)

    write_picture(tmp_path / "b.png", read_picture(tmp_path / "a.png"))

    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Author": "Jürgen", "Title": "日本", "workflow": "x" * 5000}
        assert image.info["srgb"] == 1
    assert (tmp_path / "b.png").stat().st_size < 2500


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
def test_exif_and_xmp_survive_without_what_was_of_the_file(
    tmp_path: Path, source: str, suffix: str
) -> None:
    turned = XMP.replace(b"<dc:title>", b'<r tiff:Orientation="6"/><dc:title>')
    save = {"exif": exif(), "xmp": turned, "dpi": (300, 300)}
    if source == ".png":
        save["pnginfo"] = PngImagePlugin.PngInfo()
        save["pnginfo"].add_itxt("XML:com.adobe.xmp", turned.decode())
    if source == ".tif":
        save["exif"][700] = save.pop("xmp")
        save["exif"] = save["exif"].tobytes()
    Image.fromarray(PIXELS).save(tmp_path / f"a{source}", **save)

    picture = read_picture(tmp_path / f"a{source}")
    assert picture.pixels.shape[:2] == (10, 12)
    write_picture(tmp_path / f"b{suffix}", picture)

    with Image.open(tmp_path / f"b{suffix}") as image:
        found = image.getexif()
        assert found[271] == "A camera"
        assert found.get(0x0112, 1) == 1
        assert dict(found.get_ifd(0x8769)) == {0x829A: pytest.approx(0.01)}
        assert found.get_ifd(0x8825)[1] == "N"
        image.load()
        xmp = image.info["xmp"]
        assert b"Title" in (xmp.encode() if isinstance(xmp, str) else xmp)
        assert b"Orientation" not in (xmp.encode() if isinstance(xmp, str) else xmp)
        if suffix != ".webp" and source != ".webp":
            assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)


def test_density_grows_with_the_picture_and_nothing_else_does() -> None:
    said = Metadata(gamma=45_455, density=(2835.0, 2835.0), texts=(("a", "b"),))
    assert said.enlarged(4) == Metadata(gamma=45_455, density=(11340.0, 11340.0), texts=said.texts)


def test_large_and_damaged_texts_and_profiles_leave_a_picture_whole(tmp_path: Path) -> None:
    large = b'{"n": 1}' * 180_000
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(1_400_000)
    bomb = zlib.compress(bytes(80_000_000))
    picture = read_picture(
        png(
            tmp_path / "a.png",
            chunk(b"zTXt", b"workflow\0\0" + zlib.compress(large)),
            chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(large)),
            chunk(b"iCCP", b"large\0\0" + zlib.compress(profile)),
            chunk(b"tEXt", b"wrong\0checksum", checksum=0),
            chunk(b"zTXt", b"broken\0\0no deflate"),
            chunk(b"zTXt", b"bomb\0\0" + bomb),
        )
    )
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.icc == profile
    assert dict(picture.metadata.texts) == {"workflow": large.decode(), "prompt": large.decode()}

    write_picture(tmp_path / "b.png", picture)
    again = read_picture(tmp_path / "b.png")
    assert (again.icc, again.metadata) == (picture.icc, picture.metadata)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
@pytest.mark.parametrize(
    ("said", "name"),
    [(Metadata(gamma=100_000), "gAMA 1"), (Metadata(cicp=b"\x09\x10\0\1"), "cICP")],
)
def test_linear_light_and_hdr_go_to_png_alone(suffix: str, said: Metadata, name: str) -> None:
    picture = PictureFile(PIXELS, metadata=said)
    with pytest.raises(UserError, match=rf"{name}.*choose \.png"):
        check_format(Path(f"a{suffix}"), picture)
    check_format(Path("a.png"), picture)
    # A profile says it in every format, and sRGB's own gamma says nothing new.
    if said.gamma:
        check_format(Path(f"a{suffix}"), PictureFile(PIXELS, icc=b"icc", metadata=said))
    check_format(Path(f"a{suffix}"), PictureFile(PIXELS, metadata=Metadata(gamma=45_455)))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.png", None),
        ("a.jpg", "a.jpg: JPEG cannot hold 1 texts, EXIF; left out"),
        ("a.webp", "a.webp: WEBP cannot hold pixel density, 1 texts; left out"),
        ("a.tif", "a.tif: TIFF cannot hold 1 texts; left out"),
    ],
)
def test_what_a_format_cannot_hold_is_told_in_one_line(name: str, line: str | None) -> None:
    said = Metadata(density=(1.0, 1.0), texts=(("a", "b"),), exif=bytes(66_000), xmp=b"x")
    assert left_out(Path(name), PictureFile(PIXELS, metadata=said)) == line
