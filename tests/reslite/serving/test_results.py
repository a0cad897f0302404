"""What pages send is checked against the bundle, and only then kept in the store."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import runtime
from benchmarks.store import Store, measurements_to_json
from runtime.manifest import Manifest
from runtime.tiling import restore_tiled

pytest.importorskip("uvicorn", reason="needs the extra serve")

Served = Any
Post = Callable[..., tuple[int, bytes]]

FILE = "tiny_x2_float32_64x56.tflite"


@pytest.fixture
def sent(bundle: tuple[Path, Manifest]) -> dict[str, Any]:
    """What a page sends."""
    artifact = bundle[1].artifact(FILE)
    assert artifact is not None
    return {
        **{"run": "0123456789abcdef" * 2, "block": 0, "order": 0, "start": 0, "role": "file"},
        **{"file": FILE, "sha256": artifact.sha256, "format": "tflite", "precision": "float32"},
        **{"network": "tiny", "scale": 2, "size": [64, 56], "device": "browser-wasm-2"},
        **{"machine": "Android, 8 cores", "evidence": "measured", "unit": "ms"},
        **{"runtime": "@litertjs/core 2.5.3 (wasm, 2 threads)", "threads": 2, "load": None},
        **{"when": "1999-01-01T00:00:00+00:00", "samples": [31.5, 30, 32.25], "multadds": 1234},
        **{
            "versions": {"browser": "Chromium 156"},
            "facts": {"software adapter": "no", "cores": 8},
        },
    }


@pytest.fixture
def post(served: Served) -> Post:
    cookie = served.session()
    schema = measurements_to_json([])["schema"]

    def post(one: Any, **headers: str) -> tuple[int, bytes]:
        body = (
            one if isinstance(one, bytes) else json.dumps({"schema": schema, "measurements": [one]})
        )
        status, _, answer = served.ask("/results", "POST", body, **{"Cookie": cookie, **headers})
        return status, answer

    return post


def test_a_measurement_is_kept_once_with_the_time_of_this_machine(
    served: Served, post: Post, sent: dict[str, Any]
) -> None:
    assert post(sent) == (201, b"1\n")
    assert post(sent) == (201, b"0\n")
    with Store(served.store, write=False) as store:
        (kept,) = store.measurements()
    assert (kept.file, kept.device, kept.evidence) == (FILE, "browser-wasm-2", "measured")
    assert kept.samples == (31.5, 30.0, 32.25)
    assert kept.when[:4] >= "2026"
    assert served.told[0] == (
        f"measured  {FILE} on @litertjs/core 2.5.3 (wasm, 2 threads): median 31.5 ms of 3"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"samples": [31.5, -1]}, "samples is -1"),
        ({"samples": [float("nan")]}, "samples is nan"),
        ({"samples": ["fast"]}, "samples"),
        ({"samples": []}, "measured with 0 samples"),
        ({"evidence": "executed"}, "executed with 3 samples"),
        ({"evidence": "counted"}, "evidence is 'counted'"),
        ({"sha256": "0" * 64}, "sha256 is '000"),
        ({"file": "../../etc/passwd"}, "no file that this page opens"),
        ({"file": "tiny_x2_int8.tflite"}, "no file that this page opens"),
        ({"device": "cpu"}, "device is 'cpu'"),
        ({"facts": {"software adapter": "yes"}}, "an adapter in software gives no time"),
        ({"machine": "m" * 5000}, "machine is '5000 characters'"),
        ({"machine": "\x1b[2Jphone"}, "not a line of text"),
        ({"network": 7}, "network"),
        ({"run": "x"}, "run is 'x'"),
        ({"more": 1}, "more"),
    ],
)
def test_nonsense_is_refused_with_its_reason_and_not_kept(
    served: Served, post: Post, sent: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    status, answer = post({**sent, **changes})
    assert (status, reason in answer.decode()) == (400, True), answer
    assert not served.store.exists()
    assert served.told == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"schema": 0}'])
def test_what_is_no_json_of_ours_is_refused(served: Served, post: Post, body: bytes) -> None:
    status, answer = post(body)
    assert status == 400
    assert answer.startswith(b"no measurements: ")


def test_without_a_session_nothing_is_kept(
    served: Served, post: Post, sent: dict[str, Any]
) -> None:
    assert post(sent, Cookie=f"reslite-{served.port}=wrong")[0] == 403
    assert not served.store.exists()


def test_a_store_that_cannot_be_written_is_told(
    served: Served, post: Post, sent: dict[str, Any]
) -> None:
    served.store.write_bytes(b"no store " * 100)
    status, answer = post(sent)
    assert status == 507
    assert b"results.sqlite: no store of results" in answer


def test_a_huge_upload_is_refused_unread(served: Served, post: Post) -> None:
    cookie = served.session()
    for given in (cookie, "reslite=wrong"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            head = f"POST /results HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nCookie: {given}\r\n"
            connection.sendall(f"{head}Content-Length: 9000000000\r\n\r\n".encode())
            sent = 0
            with pytest.raises(OSError):
                while sent < 200_000_000:
                    sent += connection.send(b"x" * 65536)
        assert sent < 50_000_000
    status, _, answer = served.ask("/results", "POST", b"x" * 1_100_000, Cookie=cookie)
    assert (status, answer) == (413, b"At most 1,048,576 bytes.\n")
    assert served.ask("/", Cookie=cookie)[0] == 200


def test_an_upload_that_stops_in_the_middle_is_dropped(served: Served, post: Post) -> None:
    cookie = served.session()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = f"POST /results HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        head += f"Cookie: {cookie}\r\nContent-Length: 999\r\n"
        connection.sendall(f'{head}\r\n{{"schema"'.encode())
        time.sleep(0.1)
    assert served.ask("/", Cookie=cookie)[0] == 200
    assert not served.store.exists()


def test_references_are_what_the_file_makes_here(served: Served) -> None:
    cookie = served.session()
    golden = json.loads(served.ask(f"/golden/{FILE}.json", Cookie=cookie)[2])
    assert (golden["height"], golden["width"]) == (64 + 21, 56 + 38)
    assert (golden["tolerance"], golden["origin"]) == (1, "made here")
    sides = (golden["height"], golden["width"], 3)
    picture = np.frombuffer(base64.b64decode(golden["input"]), np.uint8).reshape(sides)
    assert len(np.unique(picture)) > 200
    expected = np.frombuffer(base64.b64decode(golden["expected"]), np.uint8)
    with runtime.open(served.folder / FILE) as session:
        assert np.array_equal(restore_tiled(session, picture).ravel(), expected)


def test_a_golden_pair_in_the_bundle_is_taken(
    served: Served, tmp_path: Path, bundle: tuple[Path, Manifest], astronaut: NDArray[np.uint8]
) -> None:
    from reslite.serving.references import reference_json

    artifact = bundle[1].artifact(FILE)
    assert artifact is not None
    app = tmp_path / "app" / "js"
    (app / "golden").mkdir(parents=True)
    facts = {"scale": 2, "sha256": artifact.sha256, "golden": {"height": 3, "width": 2}}
    (app / "app.json").write_text(json.dumps(facts))
    (app / "golden" / "input.rgb").write_bytes(bytes(18))
    (app / "golden" / "expected.rgb").write_bytes(bytes(72))
    golden = json.loads(reference_json(tmp_path, artifact, (64, 56)))
    assert (golden["origin"], golden["height"], golden["width"]) == ("in the bundle", 3, 2)
    assert base64.b64decode(golden["expected"]) == bytes(72)
