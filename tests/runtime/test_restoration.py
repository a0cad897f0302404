"""Whole files: what goes in comes out larger and of the same kind, and nothing gets lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.errors import UserError
from runtime.pictures.files import PictureFile, read_picture, write_picture
from runtime.pictures.metadata import Metadata
from runtime.restoration import (
    Job,
    destinations,
    restore_all,
    restore_file,
    restore_folder,
    restore_picture,
)
from runtime.session import Session
from runtime.sides import ANY_SIDES

ROOT = Path(runtime.__file__).parent.parent


def _noise(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(height * width + channels)
    return random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


def _expected(session: Session, samples: np.ndarray) -> np.ndarray:
    """Restored by one run; grey as the mean of the channels."""
    white = np.iinfo(samples.dtype).max
    image = (samples / white).astype(np.float32)
    restored = session.run(np.broadcast_to(image, (*image.shape[:2], 3)))
    if samples.shape[2] == 1:
        restored = restored.mean(axis=2, keepdims=True)
    return np.rint(np.clip(restored, 0, 1) * white)


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    return np.abs(one.astype(np.int64) - other.astype(np.int64)).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [None, 7])
def test_colours_and_alpha_are_restored_apart(
    onnx_session: Session, dtype: type, tile: int | None
) -> None:
    pixels, alpha = _noise(21, 18, 3, dtype), np.maximum(_noise(21, 18, 1, dtype), 1)

    restored = restore_picture(onnx_session, PictureFile(pixels, alpha, icc=b"icc"), tile)

    assert restored.pixels.dtype == restored.alpha.dtype == dtype
    assert _close(restored.pixels, _expected(onnx_session, pixels))
    assert _close(restored.alpha, _expected(onnx_session, alpha))
    assert (restored.grey, restored.icc) == (False, b"icc")


def test_grey_stays_grey(onnx_session: Session) -> None:
    grey = _noise(9, 8, 1)

    restored = restore_picture(onnx_session, PictureFile(grey.repeat(3, axis=2), grey=True))

    assert restored.grey
    assert _close(restored.pixels, _expected(onnx_session, grey).repeat(3, axis=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_that_is_stored_as_rgb_stays_grey(onnx_session: Session, dtype: type) -> None:
    grey = _noise(9, 8, 1, dtype)

    restored = restore_picture(onnx_session, PictureFile(grey.repeat(3, axis=2)))

    assert not restored.grey
    assert _close(restored.pixels, _expected(onnx_session, grey).repeat(3, axis=2))


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_under_transparent_pixels_do_not_show(
    onnx_session: Session, dtype: type, hidden: int
) -> None:
    white = np.iinfo(dtype).max
    alpha = np.zeros((20, 20, 1), dtype)
    alpha[4:16, 4:16] = white
    colour = np.full((20, 20, 3), (200, 60, 40)).astype(dtype) * dtype(white // 255)
    pixels = np.where(alpha > 0, colour, hidden * (white // 255)).astype(dtype)

    restored, expected = (
        restore_picture(onnx_session, PictureFile(one, alpha)) for one in (pixels, colour)
    )

    visible = restored.alpha[..., 0] > 0
    difference = np.abs(restored.pixels.astype(int) - expected.pixels.astype(int))
    assert difference[visible].max() <= 2 * (white // 255)


def test_metadata_and_density_follow(tmp_path: Path, onnx_session: Session) -> None:
    said = Metadata(density=(1000.0, 500.0), texts=(("Author", "me"),))
    write_picture(tmp_path / "a.png", PictureFile(_noise(8, 8, 3), metadata=said))
    jobs = [Job(tmp_path / "a.png", tmp_path / name) for name in ("b.png", "b.webp")]

    report = restore_all(onnx_session, jobs)

    assert read_picture(tmp_path / "b.png").metadata == said.enlarged(2)
    assert report.notes == (
        f"{tmp_path / 'b.webp'}: WEBP cannot hold pixel density, 1 texts; left out",
    )


def test_uniform_alpha_stays_uniform(onnx_session: Session) -> None:
    alpha = np.full((9, 8, 1), 200, np.uint8)

    restored = restore_picture(onnx_session, PictureFile(_noise(9, 8, 3), alpha))

    assert restored.alpha.shape == (18, 16, 1)
    assert (restored.alpha == 200).all()


def test_ensemble_is_passed_on(onnx_session: Session) -> None:
    picture = PictureFile(_noise(9, 8, 3))
    plain, averaged = (restore_picture(onnx_session, picture, ensemble=e) for e in (False, True))
    assert not _close(plain.pixels, averaged.pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (70, 90)])
def test_a_file_is_restored(
    tmp_path: Path, onnx_session: Session, suffix: str, size: tuple[int, int]
) -> None:
    Image.fromarray(_noise(*size, 3)).save(tmp_path / "a.png")
    out = tmp_path / "new" / f"b{suffix}"

    restore_file(onnx_session, tmp_path / "a.png", out)

    # What Pillow itself writes of the restored pixels shows what the format may lose.
    expected = Image.fromarray(_expected(onnx_session, _noise(*size, 3)).astype(np.uint8))
    options = {"subsampling": "4:4:4"} if suffix == ".jpg" else {}
    expected.save(tmp_path / f"c{suffix}", quality=95, **options)
    restored, reference = (np.asarray(Image.open(p)) for p in (out, tmp_path / f"c{suffix}"))
    assert restored.shape == (2 * size[0], 2 * size[1], 3)
    assert np.abs(restored.astype(int) - reference).mean() < 0.1


def test_nothing_is_overwritten_unasked(tmp_path: Path, onnx_session: Session) -> None:
    Image.fromarray(_noise(5, 5, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"precious")

    with pytest.raises(UserError, match="--overwrite"):
        restore_file(onnx_session, tmp_path / "a.png", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == b"precious"

    restore_file(onnx_session, tmp_path / "a.png", tmp_path / "b.png", overwrite=True)
    assert read_picture(tmp_path / "b.png").pixels.shape == (10, 10, 3)


def test_a_picture_can_replace_itself_if_asked(tmp_path: Path, onnx_session: Session) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(_noise(5, 5, 3)).save(path)

    restore_file(onnx_session, path, path, overwrite=True)

    assert read_picture(path).pixels.shape == (10, 10, 3)


class Broken:
    """A session that must not be used, or fails when it is."""

    scale, halo, fixed_size = 2, 3, None
    pooling = open_tiled = None
    sides = ANY_SIDES

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def run(self, image: np.ndarray) -> np.ndarray:
        raise self._error


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    unused = Broken(AssertionError("the picture was restored first"))
    Image.fromarray(_noise(5, 5, 4), "RGBA").save(tmp_path / "a.png")
    (tmp_path / "file").write_bytes(b"")

    for name, message in {"b.gif": "unknown picture suffix", "b.jpg": "no transparency",
                          "file/b.png": "cannot be written"}.items():  # fmt: skip
        with pytest.raises(UserError, match=message):
            restore_file(unused, tmp_path / "a.png", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), UserError("too large")])
def test_failure_leaves_no_partial_file(tmp_path: Path, error: BaseException) -> None:
    Image.fromarray(_noise(5, 5, 3)).save(tmp_path / "a.png")
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError

    with pytest.raises(expected):
        restore_file(Broken(error), tmp_path / "a.png", tmp_path / "b.png")

    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# Several pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sound pictures, a damaged one and a note."""
    made = tmp_path / "in"
    made.mkdir()
    for name in ("a.png", "c.JPG", "d.webp"):
        Image.fromarray(_noise(6, 4, 3)).save(made / name)
    (made / "b.png").write_bytes((made / "a.png").read_bytes()[:60])
    (made / "note.txt").write_text("no picture")
    (made / "e.png").mkdir()
    return made


def test_one_bad_file_is_reported_and_the_others_are_finished(
    folder: Path, onnx_session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "out"

    report = restore_folder(onnx_session, folder, out)

    assert [path.name for path in report.finished] == ["a.png", "c.JPG", "d.webp"]
    assert sorted(out.iterdir()) == sorted(report.finished)
    assert all(read_picture(path).pixels.shape == (12, 8, 3) for path in report.finished)
    assert len(report.failures) == 1
    assert report.failures[0].startswith(f"{folder / 'b.png'}: ")
    assert report.skipped == ()
    assert capsys.readouterr().err == ""  # no bar where there is no terminal


def test_whatever_befalls_one_picture_the_others_are_finished(
    tmp_path: Path, onnx_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "fine.png", PictureFile(_noise(8, 8, 3)))
    long = tmp_path / f"{'x' * 250}.png"
    write_picture(tmp_path / "y.png", PictureFile(_noise(8, 9, 3)))
    (tmp_path / "y.png").rename(long)
    (tmp_path / "loop.png").symlink_to("loop.png")
    write_picture(tmp_path / "odd.png", PictureFile(_noise(5, 8, 3)))
    run = onnx_session.run

    def refusing(image: np.ndarray) -> np.ndarray:
        if len(image) == 5:
            raise RuntimeError("Non-zero status code\nand more")
        return run(image)

    monkeypatch.setattr(onnx_session, "run", refusing)
    pictures = [long, tmp_path / "loop.png", tmp_path / "odd.png", tmp_path / "fine.png"]

    report = restore_all(onnx_session, destinations(pictures, None, 2))

    assert report.finished == (tmp_path / "fine_x2.png",)
    for failure, expected in zip(
        report.failures,
        ("choose a shorter name", "Too many levels of symbolic links", "Non-zero status code"),
        strict=True,
    ):
        assert expected in failure
        assert "\n" not in failure
    assert str(pictures[2]) in report.failures[2]


def test_hidden_files_are_no_pictures(tmp_path: Path, onnx_session: Session) -> None:
    write_picture(tmp_path / "in" / "a.png", PictureFile(_noise(8, 8, 3)))
    (tmp_path / "in" / "._a.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    report = restore_folder(onnx_session, tmp_path / "in", tmp_path / "out")
    assert report.finished == (tmp_path / "out" / "a.png",)


def test_a_repeated_call_finishes_what_is_missing(folder: Path, onnx_session: Session) -> None:
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"finished earlier")

    report = restore_folder(onnx_session, folder, out)

    assert report.skipped == (out / "a.png",)
    assert [path.name for path in report.finished] == ["c.JPG", "d.webp"]
    assert (out / "a.png").read_bytes() == b"finished earlier"
    (folder / "b.png").unlink()
    with pytest.raises(UserError, match=r"a\.png and 2 more: .*--overwrite"):
        restore_folder(onnx_session, folder, out)
    assert len(restore_folder(onnx_session, folder, out, overwrite=True).finished) == 3


def test_folders_that_cannot_be_used(folder: Path, onnx_session: Session) -> None:
    with pytest.raises(UserError, match="no such folder"):
        restore_folder(onnx_session, folder / "missing", folder / "out")
    with pytest.raises(UserError, match="would replace its original"):
        restore_folder(onnx_session, folder, folder / ".." / "in", overwrite=True)
    empty = folder.parent / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        restore_folder(onnx_session, empty, folder / "out")


def test_destinations(folder: Path) -> None:
    one, other, parent = folder / "a.png", folder / "c.JPG", folder.parent

    def names(pictures: list[Path], out: Path | None) -> list[Path]:
        return [job.destination for job in destinations(pictures, out, 4)]

    assert names([one], None) == [folder / "a_x4.png"]
    assert names([one, other], None) == [folder / "a_x4.png", folder / "c_x4.png"]
    assert names([one], parent / "big.webp") == [parent / "big.webp"]
    assert names([one], parent / "out") == [parent / "out" / "a.png"]
    assert names([one, other], parent / "v1.0") == [parent / "v1.0/a.png", parent / "v1.0/c.JPG"]
    inside = ["a.png", "b.png", "c.JPG", "d.webp"]
    assert names([folder], None) == [parent / "in_x4" / name for name in inside]
    assert names([folder], parent / "out") == [parent / "out" / name for name in inside]
    assert destinations([one], None, 2) == [Job(one, folder / "a_x2.png")]


def test_destinations_that_cannot_be(folder: Path) -> None:
    one, other = folder / "a.png", folder / "c.JPG"
    with pytest.raises(UserError, match=r"unknown picture suffix '\.gif'"):
        destinations([one], Path("big.gif"), 4)
    with pytest.raises(UserError, match=r"big\.png: is a file, expected a folder"):
        destinations([one, other], Path("big.png"), 4)
    with pytest.raises(UserError, match=r"note\.txt: is a file, expected a folder"):
        destinations([folder], folder / "note.txt", 4)
    with pytest.raises(UserError, match=r"a\.png and .*a\.png: both would become"):
        destinations([one, one], folder.parent / "out", 4)
    with pytest.raises(UserError, match="would replace its original"):
        destinations([one, other], folder, 4)
    with pytest.raises(UserError, match="would replace its original"):
        destinations([one], one, 4)


def test_interrupted_work_keeps_what_was_finished(folder: Path, onnx_session: Session) -> None:
    out = folder.parent / "out"

    class Interrupted:
        scale, halo, fixed_size = 2, 3, None
        pooling = open_tiled = None
        sides = ANY_SIDES
        calls = 0

        def run(self, image: np.ndarray) -> np.ndarray:
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return onnx_session.run(image)

    with pytest.raises(KeyboardInterrupt):
        restore_all(Interrupted(), destinations([folder], out, 2))

    assert [path.name for path in out.iterdir()] == ["a.png"]
    assert read_picture(out / "a.png").pixels.shape == (12, 8, 3)


def test_ctrl_c_in_a_real_process_leaves_no_partial_file(
    tmp_path: Path, write_onnx: Callable[..., Path]
) -> None:
    Image.fromarray(_noise(8, 8, 3)).save(tmp_path / "a.png")
    program = f"""
import sys, time, runtime
from runtime.restoration import restore_file
with runtime.open({str(write_onnx(tmp_path / "n.onnx"))!r}) as session:
    run = session.run
    def slowly(image):
        print("running", flush=True)
        time.sleep(60)
        return run(image)
    session.run = slowly
    restore_file(session, {str(tmp_path / "a.png")!r}, {str(tmp_path / "out" / "b.png")!r})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts background jobs with SIGINT ignored, and processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    assert list((tmp_path / "out").iterdir())  # the temporary folder

    process.send_signal(signal.SIGINT)

    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert list((tmp_path / "out").iterdir()) == []


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_memory_is_two_pictures_and_a_tile(
    tmp_path: Path,
    write_onnx: Callable[..., Path],
    write_manifest: Callable[..., object],
    suffix: str,
) -> None:
    # Six megapixels; the network is tiny, so that nearly all the rest is interpreter and
    # libraries. The bound leaves half of the permitted 300 MB to a network of 64 channels.
    height, width = 2000, 3000
    network = write_onnx(tmp_path / "n.onnx")
    write_manifest(network, scale=2, halo=20)
    rows = np.arange(height, dtype=np.uint8)[:, np.newaxis].repeat(width, axis=1)
    Image.fromarray(np.stack([rows, rows, rows], axis=2)).save(tmp_path / "a.png", compress_level=1)
    program = f"""
import runtime
from runtime.restoration import restore_file
with runtime.open({str(network)!r}, threads=1) as session:
    restore_file(session, {str(tmp_path / "a.png")!r}, {str(tmp_path / f"b{suffix}")!r})
# Not ru_maxrss, which a process inherits from the one that started it.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(1024 * int(status["VmHWM"].split()[0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    with Image.open(tmp_path / f"b{suffix}") as restored:
        assert restored.size == (2 * width, 2 * height)
    pictures = height * width * 3 * (1 + 4)
    assert int(done.stdout) <= pictures + 150e6
