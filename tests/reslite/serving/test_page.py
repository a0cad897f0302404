"""The page in headless Chromium: it restores what reslite restores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import runtime
from runtime.tiling import restore_tiled

pytest.importorskip("uvicorn", reason="needs the extra serve")

Served = Any
Page = Any


@pytest.fixture
def opened(served: Served, phone: Page) -> Page:
    phone.goto(served.link)
    phone.wait_for_function("document.getElementById('file').options.length === 3")
    return phone


def choose(page: Page, file: str, target: str) -> None:
    """Choose a file and a target by the beginnings of their lines."""
    for name, wanted in (("file", file), ("target", target)):
        lines = page.locator(f"#{name} option").all_inner_texts()
        index = next(i for i, line in enumerate(lines) if wanted in line)
        page.select_option(f"#{name}", str(index))


def restored(page: Page, picture: Path, folder: Path) -> NDArray[np.uint8]:
    """Restore a picture file in the page and download the result."""
    page.set_input_files("#choose", picture)
    page.wait_for_selector("#work", state="visible")
    page.wait_for_selector("#work", state="hidden")
    assert page.locator("#said.bad").count() == 0, page.inner_text("#said")
    with page.expect_download() as download:
        page.click("#download")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def picture(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Larger than a tile in one direction, smaller in the other, with odd sides."""
    path = tmp_path / "my photo.png"
    Image.fromarray(astronaut[40:91, 180:283]).save(path)
    return path


@pytest.mark.parametrize(
    ("file", "target", "allowed"),
    [
        ("tiny_x2_int8_float_io_64x56.tflite", "WebAssembly, 1 thread", 0),
        ("tiny_x2_float32_64x56.tflite", "WebAssembly", 1),
        ("tiny_x2_float32.onnx", "WebAssembly", 1),
    ],
)
def test_the_page_restores_what_reslite_restores(
    served: Served,
    strict_phone: Page,
    picture: Path,
    tmp_path: Path,
    file: str,
    target: str,
    allowed: int,
) -> None:
    page = strict_phone
    page.goto(served.link)
    page.locator("#file option").nth(2).wait_for(state="attached")
    assert page.evaluate("crossOriginIsolated")
    choose(page, file, target)
    found = restored(page, picture, tmp_path)
    assert (tmp_path / "my photo_x2.png").is_file()
    with runtime.open(served.folder / file) as session:
        expected = restore_tiled(session, np.asarray(Image.open(picture)))
    assert found.shape == expected.shape == (102, 206, 3)
    assert expected.std(axis=(0, 1)).min() > 20  # a mistake would be seen
    assert int(np.abs(found.astype(int) - expected).max()) <= allowed
    assert "103×51 → 206×102" in page.inner_text("#said")


def test_a_picture_dropped_on_the_page_is_restored_while_the_page_lives(
    opened: Page, picture: Path
) -> None:
    opened.evaluate(
        """async (bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
          globalThis.ticks = 0;
          const tick = () => { globalThis.ticks += 1; setTimeout(tick, 5); };
          tick();
        }""",
        list(picture.read_bytes()),
    )
    opened.wait_for_selector("#result", state="visible")
    assert opened.evaluate("globalThis.ticks") > 10
    assert opened.inner_text("#said").startswith("103×51 → 206×102 in ")


def test_the_line_moves_with_the_slider_and_with_a_finger(opened: Page, picture: Path) -> None:
    opened.set_input_files("#choose", picture)
    opened.wait_for_selector("#result", state="visible")
    shot = "document.getElementById('view').toDataURL()"
    middle = opened.evaluate(shot)
    box = opened.locator("#view").bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    opened.mouse.up()
    assert abs(float(opened.input_value("#split")) - 0.25) < 0.01
    assert opened.evaluate(shot) != middle
    opened.fill("#split", "0.5")
    assert opened.evaluate(shot) == middle


def test_a_restoration_is_cancelled_and_another_follows(opened: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.fromarray(np.zeros((600, 800, 3), np.uint8)).save(large)
    opened.set_input_files("#choose", large)
    opened.wait_for_function("document.getElementById('tiles').textContent.startsWith('tile ')")
    opened.click("#cancel")
    opened.wait_for_function("document.getElementById('said').textContent === 'Cancelled.'")
    small = tmp_path / "small.png"
    Image.fromarray(np.full((8, 9, 3), 7, np.uint8)).save(small)
    assert restored(opened, small, tmp_path).shape == (16, 18, 3)


def test_a_photograph_is_turned_as_its_camera_was(opened: Page, tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :10] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°: the stored left is the top
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    found = opened.evaluate(
        """async (bytes) => {
          const { pixelsOf, readPicture } = await import("./picture.mjs");
          const { canvas } = await readPicture(new Blob([new Uint8Array(bytes)]), 2);
          const { width, height, data } = pixelsOf(canvas);
          return [width, height, data[4 * (2 * width + 3)], data[4 * (25 * width + 3)]];
        }""",
        list((tmp_path / "photo.jpg").read_bytes()),
    )
    width, height, top, bottom = found
    assert (width, height) == (20, 30)
    assert top > 230 and bottom < 20


def test_what_is_no_picture_is_said_so(opened: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    opened.set_input_files("#choose", tmp_path / "notes.png")
    opened.wait_for_selector("#said.bad")
    assert opened.inner_text("#said").startswith("notes.png: this browser does not read it")


def test_a_huge_picture_is_reduced_to_what_a_page_holds(opened: Page) -> None:
    size = opened.evaluate(
        """async () => {
          const { readPicture } = await import("./picture.mjs");
          const huge = Object.assign(document.createElement("canvas"), {width: 4000, height: 3000});
          huge.getContext("2d").fillRect(0, 0, 1, 1);
          const blob = await new Promise((resolve) => huge.toBlob(resolve));
          const { canvas, note } = await readPicture(blob, 4);
          return [canvas.width, canvas.height, note];
        }"""
    )
    assert size[:2] == [1182, 886]
    assert 16 * 1182 * 886 <= 4096 * 4096
    assert size[2].startswith("The picture of 4000×3000 was reduced to 1182×886")


def test_files_that_do_not_open_say_why(opened: Page) -> None:
    opened.click("#lacking summary")
    assert opened.locator("#lacking li").all_inner_texts() == [
        "tiny_x2_int8.tflite takes int8; the file with float_io in its name takes floats"
    ]


def test_a_page_without_a_session_says_what_to_do(served: Served, phone: Page) -> None:
    phone.goto(f"http://127.0.0.1:{served.port}/?token=wrong")
    assert "Open the link that the terminal shows" in phone.inner_text("body")


def test_the_link_opens_from_a_page_of_others(served: Served, phone: Page) -> None:
    phone.goto(f"data:text/html,<a href='{served.link}'>open</a>")
    phone.click("text=open")
    phone.wait_for_function("document.getElementById('file')?.options.length === 3")
    assert phone.url == f"http://127.0.0.1:{served.port}/"
