"""Runtimes in headless Chromium, on a tiny CARN-M; most tests need Chromium and 'make web'."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest

import runtime
from benchmarks.devices import browser
from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.device import Subject
from benchmarks.devices.isolated import execute_isolated
from runtime.errors import UserError

MISSING = DEVICES["onnxruntime-web"].missing()
needs_browser = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def tiny_file(tmp_path, write_artifact):
    def write(format: str, precision: str, **options) -> Subject:
        options = {"size": (16, 20), **options}
        artifact = write_artifact(tmp_path, format, precision, **options)
        return Subject(tmp_path / artifact.file, artifact, 2)

    return write


@pytest.fixture
def pictures(astronaut):
    first, second = astronaut[100:116, 220:240], astronaut[20:36, 300:320]
    return [one.astype(np.float32) / 255 for one in (first, second)]


def restored_here(subject, pictures):
    with runtime.open(subject.path, verify=False, threads=1) as session:
        return [session.run(picture) for picture in pictures]


@needs_browser
def test_litert_js_is_identical_to_litert_in_int8(tiny_file, pictures):
    subject = tiny_file("tflite", "int8", float_io=True)
    done = execute_isolated(DEVICES["litert-js-wasm"], subject, pictures)
    assert np.array_equal(done.outputs, restored_here(subject, pictures))
    assert done.runtime.startswith("@litertjs/core ")
    assert set(done.versions) == {"@litertjs/core", "Chromium"}


@needs_browser
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_onnxruntime_web_agrees(tiny_file, pictures, precision):
    subject = tiny_file("onnx", precision)
    done = execute_isolated(DEVICES["onnxruntime-web"], subject, pictures)
    limit = {"float32": 1e-5, "float16": 2e-3}[precision]
    for output, expected in zip(done.outputs, restored_here(subject, pictures), strict=True):
        assert output.shape == (32, 40, 3)
        assert np.abs(output - expected).max() < limit


@needs_browser
def test_webgpu_names_its_adapter(tiny_file, pictures):
    subject = tiny_file("tflite", "float32")
    done = execute_isolated(DEVICES["litert-js-webgpu"], subject, pictures[:1])
    (expected,) = restored_here(subject, pictures[:1])
    assert np.abs(done.outputs[0] - expected).max() < 1e-4
    assert done.facts["adapter"] in done.runtime
    assert "WebGPU" in done.runtime
    assert done.facts["on the CPU"] in ("yes", "no")


@needs_browser
def test_what_the_page_cannot_open_is_told(tiny_file, pictures):
    subject = tiny_file("tflite", "float32")
    subject.path.write_bytes(b"no network")
    with pytest.raises(UserError, match="the page fails: "):
        execute_isolated(DEVICES["litert-js-wasm"], subject, pictures)


def test_a_browser_that_ends_is_told(monkeypatch, tiny_file, pictures):
    monkeypatch.setattr(browser, "_browser_command", lambda: ["/bin/false"])
    monkeypatch.setattr(browser, "_browser_version", lambda: "1")
    with pytest.raises(UserError, match="the browser ended with code 1"):
        DEVICES["litert-js-wasm"].execute(tiny_file("tflite", "float32"), pictures)


def test_the_server_gives_only_the_page_and_the_packages(monkeypatch, tiny_file, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(browser, "_browser_command", lambda: ["/bin/sleep", "60"])
    started = []
    original = browser.ThreadingHTTPServer

    def serving(*arguments):
        started.append(original(*arguments))
        return started[-1]

    monkeypatch.setattr(browser, "ThreadingHTTPServer", serving)
    with browser._page(DEVICES["litert-js-wasm"], tiny_file("tflite", "float32")):
        address, port = started[0].server_address
        assert address == "127.0.0.1"

        def get(path):
            with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=10) as reply:
                return reply.read()

        assert b"page.js" in get("/page.html")
        assert json.loads(get("/job"))["shape"] == [1, 16, 20, 3]
        for path in ("/../browser.py", "/packages/../../../secret", "/no.js"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(path)


def test_what_is_missing_is_named_with_its_command(monkeypatch, tmp_path):
    device = DEVICES["onnxruntime-web"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(browser.shutil, "which", lambda program: None)
    assert device.missing() == "needs Chromium: apt-get install chromium (Debian)"
    with pytest.raises(UserError, match="npm is not installed: apt-get install npm"):
        browser.install_packages()
    monkeypatch.setattr(browser.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert "benchmarks.devices.browser" in device.missing()


def test_other_versions_of_packages_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(browser.shutil, "which", lambda program: f"/usr/bin/{program}")
    for package, version in browser.pinned().items():
        folder = tmp_path / "reslite" / "web" / "node_modules" / package
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"version": version}))
    device = DEVICES["litert-js-wasm"]
    assert device.missing() is None
    (folder / "package.json").write_text(json.dumps({"version": "0.0.1"}))
    assert "from npm" in device.missing()


def test_npm_that_fails_is_told(monkeypatch, tmp_path):
    def fails(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "npm error network ENOTFOUND\n")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(browser.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(browser.subprocess, "run", fails)
    with pytest.raises(UserError, match=r"npm failed \(npm error network ENOTFOUND"):
        browser.install_packages()


def test_litert_js_takes_fixed_sizes_and_floats_only(tiny_file):
    device = DEVICES["litert-js-wasm"]
    assert "--size" in device.refusal(tiny_file("tflite", "float32", size=None))
    assert "--float-io" in device.refusal(tiny_file("tflite", "int8"))
    assert device.refusal(tiny_file("tflite", "int8", float_io=True)) is None


def test_the_lock_pins_the_listed_versions_and_names_no_host():
    text = (browser._WEB / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    for package, version in browser.pinned().items():
        assert packages[f"node_modules/{package}"]["version"] == version
    assert all("integrity" in one for path, one in packages.items() if path)
    assert "http" not in text
