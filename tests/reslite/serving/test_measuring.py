"""The page in headless Chromium measures the bundle's files and reports back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.bench_tables import run_text
from benchmarks.store import Store, read_measurements
from runtime.manifest import Manifest

pytest.importorskip("uvicorn", reason="needs the extra serve")

Served = Any
Page = Any
Route = Any

FILES = {
    "float32": "tiny_x2_float32_64x56.tflite",
    "int8": "tiny_x2_int8_float_io_64x56.tflite",
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


def test_the_page_measures_checks_and_reports_back(
    served: Served, opened: Page, bundle: tuple[Path, Manifest]
) -> None:
    artifact = bundle[1].artifact(FILES["float32"])
    assert artifact is not None
    counted = artifact.multadds * (128 * 112) // (1280 * 720)  # the output's pixels
    choose(opened, list(FILES.values()), ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    assert finished(opened) == "Measured 2 of 2. The server keeps 12."
    with Store(served.store, write=False) as store:
        kept = store.measurements()
    # In each start int8 takes turns with float32, and float32 with itself.
    assert sorted((one.start, one.role, one.precision) for one in kept) == [
        (start, role, precision)
        for start in range(3)
        for role, precision in (
            ("control", "float32"),
            ("file", "int8"),
            ("reference", "float32"),
            ("reference", "float32"),
        )
    ]
    for block in range(6):
        one, other = (one for one in kept if one.block == block)
        assert len(one.samples) == len(other.samples) >= 3
        assert {one.order, other.order} == {0, 1} and one.start == other.start
    for one in kept:
        assert (one.device, one.evidence) == ("browser-wasm-1", "measured")
        assert (one.threads, one.size) == (1, (64, 56))
        assert one.runtime.startswith("@litertjs/core ")
        assert one.runtime.endswith(" (wasm, 1 thread)")
        assert str(one.facts["check"]).startswith("agrees (")
        assert "Chrom" in one.versions["browser"]
    assert len({one.run for one in kept}) == 1
    assert {one.multadds for one in kept} == {counted}
    rows = opened.locator("#table tbody tr").all_inner_texts()
    assert len(rows) == 2 and all("agrees (" in row for row in rows)
    assert sum("reference" in row for row in rows) == 1
    assert opened.inner_text("#control").startswith(
        "The reference against itself, start by start: "
    )
    assert opened.locator("#plot svg circle").count() == 6
    assert len(run_text(kept).splitlines()) > 3


def test_an_adapter_in_software_gives_no_time(served: Served, opened: Page) -> None:
    choose(opened, [FILES["float32"]], ["LiteRT.js, WebGPU"])
    opened.click("#start")
    assert finished(opened).startswith("Measured 0 of 1.")
    (row,) = opened.locator("#table tbody tr").all_inner_texts()
    assert "agrees (" in row and "adapter is a software fallback: no time" in row
    with Store(served.store, write=False) as store:
        (kept,) = store.measurements()
    assert (kept.evidence, kept.samples, kept.device) == ("executed", (), "browser-webgpu")
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
    opened.wait_for_selector("#table td.bad")
    opened.click("#stop")
    assert finished(opened) == "Stopped."
    assert "DIFFERS (0 of 255 levels, -1 allowed)" in opened.inner_text("#table td.bad")


@pytest.mark.parametrize("during", ["files", "results"])
def test_stopping_while_something_is_fetched_or_sent(
    served: Served, opened: Page, during: str
) -> None:
    def stopping(route: Route) -> None:
        opened.evaluate("document.getElementById('stop').click()")
        route.continue_()

    opened.route("**/files/*" if during == "files" else "**/results", stopping)
    choose(opened, [FILES["int8"]], ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    assert finished(opened) == "Stopped."
    kept = read_measurements(served.store) if served.store.exists() else []
    assert len(kept) == (2 if during == "results" else 0)  # one pair


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
    until = time.monotonic() + 20
    while not served.told and time.monotonic() < until:
        opened.wait_for_timeout(50)
    opened.close()
    with Store(served.store, write=False) as store:
        assert len(store.measurements()) in (2, 4)
    assert served.ask("/", Cookie=served.session())[0] == 200


def test_results_that_the_server_cannot_keep_can_be_saved(
    served: Served, opened: Page, tmp_path: Path
) -> None:
    served.store.write_bytes(b"no store " * 100)
    choose(opened, [FILES["int8"]], ["LiteRT.js, WebAssembly, 1 thread"])
    opened.click("#start")
    told = finished(opened)
    assert told.startswith("Measured 1 of 1. The server keeps 0. It keeps no more: ")
    assert "results.sqlite: no store of results" in told
    with opened.expect_download() as download:
        opened.click("#save")
    download.value.save_as(tmp_path / "saved.json")
    saved = read_measurements(tmp_path / "saved.json")
    assert [one.role for one in saved].count("control") == 3
    assert len(saved) == 6
