"""How a phone gets the page: HTTPS and a QR code, adb, or a folder that opens offline."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra serve")

from reslite.serving.bundle import site_of
from reslite.serving.exporting import export_site
from reslite.serving.icons import icon
from reslite.serving.reaching import _certificate, qr_code, reach_of, reversed_port
from reslite.serving.runtimes import RUNTIMES
from runtime.errors import UserError
from runtime.manifest import Manifest

Served = Any
Page = Any
Cli = Callable[..., Any]


# In the same network


def test_the_page_has_threads_over_https_with_a_certificate_made_on_the_spot(
    start: Callable[..., Served], chromium: Any
) -> None:
    made = _certificate("127.0.0.1")
    served = start(https=made.context)
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", served.port)))
    digest = hashlib.sha256(shown).hexdigest().upper()
    assert made.fingerprint.replace(":", "") == digest
    context = chromium.new_context(ignore_https_errors=True, bypass_csp=True)
    page = context.new_page()
    page.goto(served.link)
    page.wait_for_function("document.getElementById('file').options.length === 3")
    assert page.evaluate("[isSecureContext, crossOriginIsolated, 'gpu' in navigator]") == [True] * 3
    (cookie,) = context.cookies()
    assert cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Lax"
    context.close()


def test_only_other_addresses_than_this_machines_own_get_https(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for host in (None, "127.0.0.1", "localhost", "127.8.9.1", "::1"):
        reach = reach_of(host, phone=False)
        assert (reach.scheme, reach.host) == ("http", host or "127.0.0.1")
    assert reach_of("::1", phone=False).shown == "[::1]"
    assert reach_of("192.0.2.7", phone=False).scheme == "https"
    monkeypatch.setattr("reslite.serving.reaching._address_in_network", lambda: "192.0.2.8")
    reach = reach_of(None, phone=True)
    assert (reach.scheme, reach.host, reach.shown) == ("https", "192.0.2.8", "192.0.2.8")
    reach = reach_of("0.0.0.0", phone=True)
    assert (reach.scheme, reach.host, reach.shown) == ("https", "0.0.0.0", "192.0.2.8")


def test_the_qr_code_is_read_as_the_link() -> None:
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless to read the code")
    link = "https://192.0.2.8:8765/?token=dXk1OnCQjYcvZD2N9q-WrA"
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    lines = [[halves[one] for one in line] for line in qr_code(link).splitlines()]
    rows = [[pair[half] for pair in line] for line in lines for half in (0, 1)]
    picture = np.kron(255 * np.array(rows, np.uint8), np.ones((8, 8), np.uint8))
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == link


# Over USB


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Put an adb on the path that writes down how it is called and ends with a code."""

    def adb(code: int) -> Path:
        program, calls = tmp_path / "adb", tmp_path / "calls"
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho "no device" >&2\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return calls

    return adb


def test_a_phone_on_usb_reaches_the_port_while_the_page_is_served(
    adb: Callable[[int], Path],
) -> None:
    calls = adb(0)
    with reversed_port("R5CT", 8765):
        assert calls.read_text() == "-s R5CT reverse tcp:8765 tcp:8765\n"
    assert calls.read_text().splitlines()[1:] == ["-s R5CT reverse --remove tcp:8765"]


def test_a_phone_that_adb_does_not_reach_is_told(
    adb: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adb(1)
    with (
        pytest.raises(UserError, match=r"adb does not reach R5CT \(no device\); see 'adb devices'"),
        reversed_port("R5CT", 8765),
    ):
        pass
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with (
        pytest.raises(UserError, match="adb is not installed: apt-get install adb"),
        reversed_port("R5CT", 8765),
    ):
        pass


def test_usb_and_an_address_at_once_are_refused(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("serve", tmp_path, "--adb", "R5CT", "--phone")
    assert (outcome.code, "--adb needs no address" in outcome.err) == (2, True)


# Without a server of ours


@pytest.fixture
def exported(bundle: tuple[Path, Manifest], tmp_path: Path) -> Path:
    if not all(one.installed() for one in RUNTIMES):
        pytest.skip("needs 'make web'")
    folder = tmp_path / "site"
    # LiteRT alone, which keeps the test short.
    site = site_of(*bundle, exported=True)
    export_site({path: one for path, one in site.items() if "onnxruntime-" not in path}, folder)
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def anywhere(exported: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A static server that knows nothing of the page, and what ends it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=exported.parent))
    Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    yield f"http://127.0.0.1:{server.server_port}/site/", stop
    stop()


def test_the_exported_page_opens_offline_after_the_first_load_with_threads(
    anywhere: tuple[str, Callable[[], None]],
    phone: Page,
    astronaut: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    address, stop = anywhere
    phone.goto(address)
    phone.wait_for_function(
        "document.getElementById('offline').textContent.startsWith('opens off')"
    )
    assert phone.inner_text("#offline") == "opens offline, too; faster once it is loaded again"
    stop()
    phone.reload()
    phone.wait_for_function("document.getElementById('file').options.length === 3")
    assert phone.evaluate("crossOriginIsolated")
    assert "threads" in phone.inner_text("#target option:first-child")
    picture = tmp_path / "photo.png"
    Image.fromarray(astronaut[40:80, 180:230]).save(picture)
    phone.set_input_files("#choose", picture)
    phone.wait_for_selector("#result", state="visible")
    assert phone.inner_text("#said").startswith("50×40 → 100×80 in ")
    phone.click("text=Measure")
    assert phone.is_visible("#start")


def test_the_exported_page_can_be_installed(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.webmanifest").read_text(encoding="utf-8"))
    assert (manifest["name"], manifest["display"]) == ("tiny ×2 · reslite", "standalone")
    for one in manifest["icons"]:
        with Image.open(exported / one["src"]) as picture:
            assert f"{picture.width}x{picture.height}" == one["sizes"]
    page = (exported / "index.html").read_text(encoding="utf-8")
    assert '<link rel="manifest" href="manifest.webmanifest"' in page
    facts = json.loads((exported / "bundle.json").read_text(encoding="utf-8"))
    assert facts["exported"] is True
    (described,) = exported.glob("runtimes/litert-*/package.json")
    assert json.loads(described.read_text())["license"] == "Apache-2.0"
    golden = [one for one in facts["files"] if "lacks" not in one]
    assert all((exported / "golden" / f"{one['file']}.json").is_file() for one in golden)


def test_the_icon_is_coarse_at_its_left_and_smooth_at_its_right(tmp_path: Path) -> None:
    (tmp_path / "icon.png").write_bytes(icon(192))
    pixels = np.asarray(Image.open(tmp_path / "icon.png"))
    assert pixels.shape == (192, 192, 3)
    assert not np.array_equal(pixels[:, :96], pixels[:, :95:-1])
    blocks = pixels[:, :96].reshape(12, 16, 6, 16, 3)
    assert int(np.ptp(blocks, axis=(1, 3)).max()) <= 1


def test_an_exported_page_is_replaced_only_if_told_and_nothing_else_ever(
    cli: Cli, bundle: tuple[Path, Manifest], exported: Path, tmp_path: Path
) -> None:
    outcome = cli("serve", bundle[0], "--export", exported)
    assert (outcome.code, "already exists; pass --overwrite" in outcome.err) == (2, True)
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.txt").write_text("years")
    outcome = cli("serve", bundle[0], "--export", others, "--overwrite")
    assert outcome.code == 2
    assert "holds something else than a page" in outcome.err
    assert (others / "thesis.txt").read_text() == "years"
    first = (exported / "service-worker.js").read_bytes()
    outcome = cli("serve", bundle[0], "--export", exported, "--overwrite")
    assert outcome.code == 0
    second = (exported / "service-worker.js").read_bytes()
    assert first.splitlines()[0] != second.splitlines()[0]  # other files: another version


def test_a_served_page_keeps_nothing_for_offline_use(served: Served) -> None:
    assert served.ask("/service-worker.js", Cookie=served.session())[0] == 404
