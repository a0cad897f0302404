"""The page in headless Chromium measures the bundle's files and reports back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.store import Store

pytest.importorskip("uvicorn", reason="needs the extra serve")

Served = Any
Page = Any

FILES = {
    "float32": "carn_m_x2_float32_64x56.tflite",
    "int8": "carn_m_x2_int8_float_io_64x56.tflite",
}


@pytest.fixture
def opened(served: Served, phone: Page) -> Page:
    phone.goto(served.link)
    phone.wait_for_function("document.querySelectorAll('#files input').length === 3")
    phone.click("text=Measure")
    return phone


def choose(page: Page, files: list[str], targets: list[str]) -> None:
    """Leave only these files and targets checked."""
    for place, wanted in (("#files", files), ("#targets", targets)):
        for label in page.locator(f"{place} label").all():
            label.locator("input").set_checked(label.inner_text().strip() in wanted)


def finished(page: Page) -> str:
    page.wait_for_function("document.getElementById('told').textContent")
    assert page.is_hidden("#stop")
    return str(page.inner_text("#told"))


def test_the_page_measures_checks_and_reports_back(served: Served, opened: Page) -> None:
    choose(opened, list(FILES.values()), ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    assert finished(opened) == "Measured 2 of 2. The server keeps 6."
    with Store(served.store, write=False) as store:
        kept = store.measurements()
    assert sorted((one.precision, one.start) for one in kept) == [
        (precision, start) for precision in ("float32", "int8") for start in range(3)
    ]
    for one in kept:
        assert (one.device, one.evidence, one.threads, one.size) == (
            "browser",
            "measured",
            1,
            (64, 56),
        )
        assert len(one.samples) >= 3
        assert one.runtime.startswith("@litertjs/core ") and one.runtime.endswith(
            " (wasm, 1 thread)"
        )
        assert str(one.facts["check"]).startswith("agrees (")
        assert "Chrom" in one.versions["browser"]
    assert len({one.run for one in kept}) == 1
    # CARN-M x2's MultAdds at 1280x720, as the paper counts them, are 91.2 G.
    assert {
        round(one.multadds * 1280 * 720 / (128 * 112) / 1e9, 1) for one in kept if one.multadds
    } == {91.2}
    rows = opened.locator("#table tbody tr").all_inner_texts()
    assert len(rows) == 2 and all("agrees (" in row for row in rows)
    assert opened.locator("#plot svg circle").count() == 6


@pytest.mark.slow
def test_an_adapter_in_software_gives_no_time(served: Served, opened: Page) -> None:
    choose(opened, [FILES["float32"]], ["LiteRT.js, WebGPU"])
    opened.click("#start")
    assert finished(opened).startswith("Measured 0 of 1.")
    (row,) = opened.locator("#table tbody tr").all_inner_texts()
    assert "agrees (" in row and "adapter is a software fallback: no time" in row
    with Store(served.store, write=False) as store:
        (kept,) = store.measurements()
    assert (kept.evidence, kept.samples) == ("executed", ())
    assert "swiftshader" in str(kept.facts["adapter"])


def test_a_wrong_output_is_told(
    served: Served, opened: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.route(
        "**/golden/*.json",
        lambda route: route.fulfill(json={**route.fetch().json(), "tolerance": -1}),
    )
    choose(opened, [FILES["int8"]], ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    finished(opened)
    assert "DIFFERS (0 of 255 levels, -1 allowed)" in opened.inner_text("#table td.bad")


def test_what_does_not_open_has_a_row_with_its_reason(served: Served, opened: Page) -> None:
    opened.route("**/files/*", lambda route: route.fulfill(status=409, body="changed"))
    choose(opened, [FILES["int8"]], ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    assert finished(opened).startswith("Measured 0 of 1.")
    assert opened.inner_text("#table td.bad") == "changed"
    assert not served.store.exists()


def test_a_page_that_is_closed_in_the_middle_leaves_what_it_sent(
    served: Served, opened: Page
) -> None:
    choose(opened, [FILES["int8"]], ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    opened.wait_for_function("document.querySelectorAll('#table tbody tr').length === 1")
    until = time.monotonic() + 20
    while not served.told and time.monotonic() < until:
        opened.wait_for_timeout(50)
    opened.close()
    with Store(served.store, write=False) as store:
        assert 1 <= len(store.measurements()) <= 3
    assert served.ask("/", Cookie=served.session())[0] == 200


def test_results_are_saved_as_a_file_that_the_store_imports(
    served: Served, opened: Page, tmp_path: Path
) -> None:
    from benchmarks.store import read_measurements

    choose(opened, [FILES["int8"]], ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    finished(opened)
    with opened.expect_download() as download:
        opened.click("#save")
    download.value.save_as(tmp_path / "saved.json")
    saved = read_measurements(tmp_path / "saved.json")
    with Store(served.store, write=False) as store:
        kept = store.measurements()
    assert [one.samples for one in saved] == [one.samples for one in kept]
