"""The server gives the page to who has the link, and nothing else to anybody."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from reslite.serving import runtimes, server
from reslite.serving.bundle import lacking, open_bundle
from reslite.serving.links import Links
from runtime.errors import UserError
from runtime.manifest import Manifest

Served = Any
Cli = Callable[..., Any]


def test_a_link_opens_one_session_and_the_page(served: Served) -> None:
    link = f"/?token={served.tokens[0]}"
    status, headers, _ = served.ask(link)
    assert (status, headers["location"]) == (303, "./")
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=lax" in headers["set-cookie"]
    cookie = headers["set-cookie"].partition(";")[0]
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/worker.js", "text/javascript; charset=utf-8"),
        ("/restore.mjs", "text/javascript; charset=utf-8"),
        ("/files/tiny_x2_float32.onnx", "application/octet-stream"),
        (f"/{runtimes.RUNTIMES[0].folder}/wasm/litert_wasm_internal.wasm", "application/wasm"),
    ):
        status, headers, body = served.ask(path, Cookie=cookie)
        assert (status, headers["content-type"]) == (200, kind)
        assert body
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'self'" in headers["content-security-policy"]
    assert served.ask(link)[0] == 403  # used
    assert len(served.tokens) == 2
    assert served.ask(f"/?token={served.tokens[1]}")[0] == 303


@pytest.mark.parametrize("token", ["", "wrong", "%00", "ä" * 9, "a" * 5000])
def test_a_wrong_token_opens_nothing_and_leaves_the_link_as_it_is(
    served: Served, token: str
) -> None:
    status, headers, body = served.ask(f"/?token={token.replace('ä', '%C3%A4')}")
    assert status == 403
    assert "set-cookie" not in headers
    assert body.startswith(b"Open the link that the terminal shows")
    assert served.tokens == served.tokens[:1]
    assert served.ask(f"/?token={served.tokens[0]}")[0] == 303


def test_without_a_session_there_is_nothing(served: Served) -> None:
    for path in ("/", "/index.html", "/bundle.json", "/files/tiny_x2_float32.onnx", "/none"):
        assert served.ask(path)[0] == 403
        assert served.ask(path, Cookie=f"reslite-{served.port}=wrong")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../../etc/passwd",
        "/files/../manifest.json",
        "/files/..%2fmanifest.json",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/files/%2Fetc%2Fpasswd",
        "/files/tiny_x2_int8.tflite",
        "/manifest.json",
        "/files/",
        "/page/index.html",
        "/%00",
    ],
)
def test_no_path_leads_out_of_the_site(served: Served, path: str) -> None:
    status, _, body = served.ask(path, Cookie=served.session())
    assert (status, body) == (404, b"There is nothing here.\n")


def test_the_page_learns_what_each_file_takes_or_lacks(served: Served) -> None:
    facts = json.loads(served.ask("/bundle.json", Cookie=served.session())[2])
    files = {one["file"]: one for one in facts["files"]}
    assert (facts["model"], facts["scale"], facts["exported"]) == ("tiny", 2, False)
    int8 = files["tiny_x2_int8_float_io_64x56.tflite"]
    assert (int8["runtime"], int8["window"], int8["halo"]) == ("litert", [64, 56], 7)
    assert int8["input"] == {"name": "image", "layout": "NHWC", "dtype": "float32"}
    onnx = files["tiny_x2_float32.onnx"]
    assert (onnx["runtime"], onnx["window"]) == ("onnxruntime", [128, 128])
    assert files["tiny_x2_int8.tflite"]["lacks"].startswith("takes int8; the file with float_io")


def test_a_file_without_a_fixed_size_says_what_would_add_one(
    bundle: tuple[Path, Manifest],
) -> None:
    _, manifest = bundle
    fixed = manifest.artifact("tiny_x2_float32_64x56.tflite")
    assert fixed is not None and lacking(manifest, fixed) is None
    free = dataclasses.replace(
        fixed, input=dataclasses.replace(fixed.input, shape=(1, None, None, 3))
    )
    said = lacking(manifest, free)
    assert said is not None and said.endswith(
        "reslite ship tiny --scale 2 --size 128x128 adds such files"
    )
    pooling = dataclasses.replace(manifest, halo=None)
    assert "averages over the whole picture" in str(lacking(pooling, fixed))
    tiled = dataclasses.replace(fixed, tiled_by="other.onnx")
    assert "other.onnx restores tiles" in str(lacking(manifest, tiled))
    wide = dataclasses.replace(manifest, halo=28)
    assert "is all halo (28 pixels on each side)" in str(lacking(wide, fixed))


def test_a_file_that_changes_while_it_is_served_is_not_given(
    start: Callable[..., Served], bundle: tuple[Path, Manifest], tmp_path: Path
) -> None:
    folder = tmp_path / "dist"
    shutil.copytree(bundle[0], folder)
    served = start(folder)
    cookie = served.session()
    (folder / "tiny_x2_float32.onnx").write_bytes(b"other")
    status, _, body = served.ask("/files/tiny_x2_float32.onnx", Cookie=cookie)
    assert status == 409
    assert b"SHA-256 differs from manifest.json" in body
    with pytest.raises(UserError, match="SHA-256 differs"):
        open_bundle(folder)


def test_more_connections_than_a_browser_needs_are_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    cookie = served.session()
    time.sleep(0.1)
    kept = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
    time.sleep(0.1)
    with pytest.raises((ConnectionError, OSError)):
        served.ask("/", Cookie=cookie)
    for one in kept:
        one.close()
    time.sleep(0.1)
    assert served.ask("/", Cookie=cookie)[0] == 200


def test_a_connection_that_asks_for_nothing_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SECONDS_OF_SILENCE", 0.3)
    cookie = served.session()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert silent.recv(1) == b""
    assert served.ask("/", Cookie=cookie)[0] == 200


def test_links_compare_bytes_and_forget_the_oldest_session() -> None:
    tokens: list[str] = []
    links = Links(tokens.append)
    assert links.open("ü") is None
    sessions = [links.open(tokens[-1]) for _ in range(65)]
    assert len(set(tokens)) == 66
    assert None not in sessions
    assert not links.knows(str(sessions[0]))
    assert links.knows(str(sessions[1])) and links.knows(str(sessions[64]))
    assert not links.knows("") and not links.knows("ü")


# The command


def test_a_port_in_use_is_named(cli: Cli, bundle: tuple[Path, Manifest]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = cli("serve", bundle[0], "--port", port)
    assert outcome.code == 2
    assert f"port {port} is in use" in outcome.err
    assert f"--port {port + 1}" in outcome.err


def test_an_address_of_another_machine_is_refused(cli: Cli, bundle: tuple[Path, Manifest]) -> None:
    outcome = cli("serve", bundle[0], "--host", "192.0.2.1", "--port", 0)
    assert outcome.code == 2
    assert "192.0.2.1: not an address of this machine" in outcome.err


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6 with IPv4 beside it")
def test_every_address_of_a_machine_is_every_one() -> None:
    with server.bound_socket("::", 0) as listening:
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 5).close()


def test_a_folder_without_a_bundle_is_refused(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("serve", tmp_path)
    assert outcome.code == 2
    assert "no manifest.json; expected a folder that 'reslite ship' made" in outcome.err


def test_without_npm_the_message_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"@litertjs/core .* from npm, .* apt-get install npm"):
        runtimes.install_runtimes(lambda line: None)


def test_ctrl_c_ends_the_server_quietly(bundle: tuple[Path, Manifest], served: Served) -> None:
    command = [sys.executable, "-m", "reslite", "serve", str(bundle[0]), "--port", "0"]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        link = process.stdout.readline().strip()
        assert link.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError, match="403"):  # waits; brings no cookie back
            urllib.request.urlopen(link, timeout=20)
        process.terminate()
        assert process.wait(20) == 0
        assert process.stdout.readline().startswith("http://127.0.0.1:")  # the next link
        assert process.stderr.read() == "the page, for one browser; Ctrl-C ends it:\n"
