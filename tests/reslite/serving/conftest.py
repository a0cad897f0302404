"""A small bundle and a server of its page."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from export.bundle import bundle_of
from export.sources.source import Source
from export.variants import Variant
from quantize.ptq import find_scales
from quantize.simulator import int8_reference
from reslite.serving.bundle import site_of
from reslite.serving.links import Links
from reslite.serving.results import keeping
from reslite.serving.runtimes import RUNTIMES
from runtime.manifest import Manifest
from training.catalogue import find_model
from training.networks.carn import AtScale, Carn, CarnConfig

SIZE = (64, 56)
NO_RUNTIMES = "needs 'make web'"
BROWSER = shutil.which("chromium")


@dataclass
class Served:
    """A server and what it told."""

    port: int
    tokens: list[str]
    folder: Path
    store: Path
    told: list[str]
    scheme: str = "http"

    @property
    def link(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/?token={self.tokens[-1]}"

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request as it is, without anything that clients do to paths."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            names = {name.replace("_", "-"): one for name, one in headers.items()}
            connection.request(method, path, body, names)
            reply = connection.getresponse()
            answered = {name.lower(): one for name, one in reply.getheaders()}
            return reply.status, answered, reply.read()
        finally:
            connection.close()

    def session(self) -> str:
        """Open the link; return the cookie of the session."""
        status, headers, _ = self.ask(f"/?token={self.tokens[-1]}")
        assert status == 303
        return headers["set-cookie"].partition(";")[0]


class TinyModel:
    """CARN-M with 8 channels and one block of two units, seeded; else the shipped model."""

    name = "tiny"

    def __init__(self) -> None:
        self._shipped = find_model("carn-m")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shipped, name)

    def at_scale(self, scale: int) -> torch.nn.Module:
        torch.manual_seed(0)
        config = CarnConfig(
            channels=8, blocks=1, units=2, groups=2, efficient=True, recursive=True, scales=(scale,)
        )
        module = AtScale(Carn(config), scale).eval()
        *_, weights, _ = module.parameters()
        with torch.no_grad():
            weights *= 8  # so that pictures have contrast
        return module


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, astronaut: NDArray[np.uint8]
) -> tuple[Path, Manifest]:
    """A tiny network ×2 in files that open in browsers and one that does not."""
    source, folder = Source.of(TinyModel(), 2), tmp_path_factory.mktemp("dist")
    pictures = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        crop = astronaut[100 * number :][:192, 150:342]
        Image.fromarray(crop).save(pictures / f"{number}.png")
    variants = [
        Variant("tflite", "int8", float_io=True, size=SIZE),
        Variant("tflite", "float32", size=SIZE),
        Variant("tflite", "int8"),
        Variant("onnx", "float32"),
    ]
    return folder, bundle_of(
        source, variants, folder, find_scales(source, pictures), int8_reference
    )


@pytest.fixture
def start(bundle: tuple[Path, Manifest], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve a bundle's page in a thread until the test ends."""
    from reslite.serving.server import application, server_of

    running = []

    def start(folder: Path | None = None, https: Any = None) -> Served:
        if not all(one.installed() for one in RUNTIMES):
            pytest.skip(NO_RUNTIMES)
        listening = socket.create_server(("127.0.0.1", 0))
        tokens: list[str] = []
        told: list[str] = []
        folder, store = folder or bundle[0], tmp_path / "results.sqlite"
        keep = keeping(bundle[1], store, told.append)
        app = application(site_of(folder, bundle[1]), Links(tokens.append), keep)
        server = server_of(app, https)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread, listening))
        scheme = "https" if https else "http"
        return Served(listening.getsockname()[1], tokens, folder, store, told, scheme)

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture
def served(start: Callable[..., Served]) -> Served:
    return start()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by playwright.

    Of a module and not of the session, because playwright's event loop would run meanwhile in the
    thread of other tests, which start their own (Core AI's).
    """
    if BROWSER is None:
        pytest.skip("needs Chromium: apt-get install chromium (Debian)")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    options = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    # Chromium's sandbox refuses to run as root, as in containers; the page is our own.
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """A page in a phone's viewport, in which playwright may evaluate what it waits for."""
    yield from _phone(chromium, bypass_csp=True)


@pytest.fixture
def strict_phone(chromium: Any) -> Iterator[Any]:
    """The same under the server's rules for what a page may evaluate and load."""
    yield from _phone(chromium)


def _phone(chromium: Any, **options: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, **options)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()
