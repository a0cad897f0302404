"""Headless Chromium as a device: a page runs the file, this process serves it and feeds inputs.

The runtimes' packages come from npm, in the versions that ``web/package-lock.json`` pins;
``python -m benchmarks.devices.browser`` (or ``make web``) installs them in the cache folder. The
page loads nothing from outside this machine.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Device, Execution, Subject, run_session
from runtime.cache import cache_folder
from runtime.engines.engine import Engine
from runtime.errors import UserError
from runtime.session import FloatPicture

COMMAND = f"{Path(sys.executable).name} -m benchmarks.devices.browser"
ADDRESS = "127.0.0.1"

_WEB = Path(__file__).with_name("web")
_LISTS = ("package.json", "package-lock.json")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript"}
_TYPES |= {".wasm": "application/wasm"}
_OPTIONS = (
    "--headless",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    # Without a graphics card, WebGPU needs SwiftShader, a driver that computes on the CPU.
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
)
_POLL_SECONDS = 0.2


class BrowserDevice(Device):
    """A runtime in the browser.

    Attributes:
        package: Its package on npm.
        script: The module in ``web`` that opens files with it, without suffix.
        accelerator: What the runtime shall compute on, in its own words.
    """

    package: str
    script: str
    accelerator = "wasm"
    time_limit = 300.0

    def missing(self) -> str | None:
        """Return what is missing: Chromium, or the packages in their pinned versions."""
        if _browser() is None:
            return "needs Chromium: apt-get install chromium (Debian)"
        if any(installed_version(one) != version for one, version in pinned().items()):
            return f"needs {self.package} {pinned()[self.package]} from npm: {COMMAND}"
        return None

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the package and of Chromium."""
        return {self.package: pinned()[self.package], "Chromium": _browser_version()}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file in a page.

        Raises:
            UserError: If the page or the browser fails, or the file does not run on the
                accelerator.
        """
        versions = self.versions()
        with _page(self, subject) as page:
            facts = page.wait_until_ready()
            place = self.accelerator if "adapter" not in facts else f"WebGPU, {facts['adapter']}"
            name = f"{self.package} {versions[self.package]} ({place})"
            outputs = run_session(PageEngine(name, page, subject), subject, pictures)
        return Execution(name, outputs, versions, fallbacks={}, facts=facts)


def packages_folder() -> Path:
    """Return the folder of the packages; it may not exist yet."""
    return cache_folder() / "web" / "node_modules"


def pinned() -> Mapping[str, str]:
    """Return the versions of the runtimes' packages that the lock pins, by name."""
    found: dict[str, str] = json.loads((_WEB / _LISTS[0]).read_text(encoding="utf-8"))[
        "dependencies"
    ]
    return found


def installed_version(package: str) -> str | None:
    """Return the version of an installed package of npm, or None."""
    try:
        text = (packages_folder() / package / "package.json").read_text(encoding="utf-8")
    except OSError:
        return None
    return str(json.loads(text)["version"])


def install_packages() -> Path:
    """Install the runtimes' packages in the cache folder; return the folder.

    Raises:
        UserError: If npm is missing or fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is not installed: apt-get install npm (Debian)")
    folder = packages_folder().parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in _LISTS:
        shutil.copy(_WEB / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        said = (run.stderr or run.stdout).strip().splitlines()
        reason = next((line for line in said if "error" in line), said[-1] if said else "")
        raise UserError(f"npm failed ({reason or 'no message'}); is there a network?")
    return folder


@dataclass
class Page:
    """What the server and the engine exchange with one page.

    Attributes:
        job: What the page is asked to do.
        file: The network.
        inputs: Tensors for the page, as bytes; None ends it.
        replies: What the page posts: its path and body.
        process: The browser, once it is started.
    """

    job: Mapping[str, Any]
    file: Path
    inputs: queue.Queue[bytes | None] = field(default_factory=queue.Queue)
    replies: queue.Queue[tuple[str, bytes]] = field(default_factory=queue.Queue)
    process: subprocess.Popen[bytes] | None = None

    def wait_until_ready(self) -> dict[str, str]:
        """Return what the page tells of the opened file.

        Raises:
            UserError: If it cannot open the file, or the browser ends.
        """
        facts: dict[str, str] = json.loads(self.wait_for("/ready"))
        return facts

    def wait_for(self, path: str) -> bytes:
        """Return the body that the page posts to ``path``.

        Raises:
            UserError: If it posts an error instead, or the browser ends.
        """
        while True:
            with suppress(queue.Empty):
                posted, body = self.replies.get(timeout=_POLL_SECONDS)
                if posted == path:
                    return body
                raise UserError(f"the page fails: {body.decode(errors='replace')}")
            code = self.process.poll() if self.process is not None else None
            if code is not None:
                raise UserError(f"the browser ended with code {code}")


class PageEngine(Engine):
    """A network in a page, with one picture in and one out, of fixed size."""

    def __init__(self, name: str, page: Page, subject: Subject) -> None:
        super().__init__(name, (subject.artifact.input,), (subject.artifact.output,))
        self._page = page
        self._input = b""
        self._output = b""

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Keep the values of the input for the next ``invoke``."""
        self._input = array.tobytes()

    def invoke(self) -> None:
        """Run the network in the page."""
        self._page.inputs.put(self._input)
        self._output = self._page.wait_for("/output")

    def fetch(self, name: str) -> NDArray[Any]:
        """Return the last output."""
        tensor = self.outputs[0]
        shape = [extent for extent in tensor.shape if extent is not None]
        return np.frombuffer(self._output, tensor.dtype).reshape(shape)

    def close(self) -> None:
        """Let the page end."""
        self._page.inputs.put(None)


@contextmanager
def _page(device: BrowserDevice, subject: Subject) -> Iterator[Page]:
    """Serve a page and open it in a browser while the block runs."""
    tensor = subject.artifact.input
    job = {
        "runtime": device.script,
        "accelerator": device.accelerator,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
    }
    page = Page(job, subject.path)
    server = ThreadingHTTPServer((ADDRESS, 0), _handler_of(page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            address = f"http://{ADDRESS}:{server.server_port}/page.html"
            page.process = subprocess.Popen(
                [*_browser_command(), f"--user-data-dir={profile}", address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                yield page
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(page.process.pid, signal.SIGKILL)
                page.process.wait()
    finally:
        page.inputs.put(None)
        server.shutdown()
        server.server_close()


def _handler_of(page: Page) -> type[BaseHTTPRequestHandler]:
    """Return a handler of requests that serves ``page``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/job":
                self._reply(json.dumps(page.job).encode(), "application/json")
            elif self.path == "/file":
                self._reply(page.file.read_bytes())
            elif self.path == "/input":
                values = page.inputs.get()
                self._reply(values or b"", status=204 if values is None else 200)
            else:
                self._reply_file()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            page.replies.put((self.path, body))
            self._reply(b"")

        def _reply_file(self) -> None:
            inside, _, rest = self.path.lstrip("/").partition("/")
            folder, name = (packages_folder(), rest) if inside == "packages" else (_WEB, inside)
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()) or not path.is_file():
                self._reply(b"", status=404)
                return
            kind = _TYPES.get(path.suffix, "application/octet-stream")
            self._reply(path.read_bytes(), kind)

        def _reply(
            self, body: bytes, kind: str = "application/octet-stream", status: int = 200
        ) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the browser has ended
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write no log."""

    return Handler


def _browser() -> str | None:
    return next((path for one in _BROWSERS if (path := shutil.which(one)) is not None), None)


def _browser_command() -> list[str]:
    browser = _browser()
    if browser is None:
        raise UserError("Chromium is not installed: apt-get install chromium (Debian)")
    # Chromium's sandbox refuses to run as root, as in containers; the page is our own.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return [browser, *_OPTIONS, *sandbox]


def _browser_version() -> str:
    browser = _browser()
    if browser is None:
        return "unknown"
    run = subprocess.run([browser, "--version"], capture_output=True, text=True, check=False)
    return next((word for word in run.stdout.split() if word[0].isdigit()), "unknown")


if __name__ == "__main__":
    try:
        print(f"installed {install_packages()}")
    except UserError as error:
        sys.exit(f"reslite: {error}")
