"""The worker's protocol, spoken without a process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runtime
from benchmarks.devices.timing_worker import Settings, input_size, main
from runtime.manifest import Artifact


def _talk(settings: Settings, requests: int) -> list[object]:
    replies = io.StringIO()
    main(settings.to_json(), io.StringIO("\n" * requests), replies)
    return [json.loads(line) for line in replies.getvalue().splitlines()]


def test_session_is_described_then_timed_then_weighed(
    write_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    file = write_artifact(tmp_path, "onnx", "float32").file

    opened, *times, peak = _talk(Settings(str(tmp_path / file), None, 1, (6, 9), 2), requests=3)

    assert isinstance(opened, dict)
    assert opened["size"] == [6, 9]
    assert opened["scale"] == 2
    assert "ONNX Runtime" in opened["runtime"]
    assert len(times) == 3
    assert all(isinstance(time, int) and time > 0 for time in times)
    assert isinstance(peak, int)


def test_every_timed_inference_is_one_invocation(
    write_artifact: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_artifact(tmp_path, "onnx", "float32").file
    session = runtime.open(tmp_path / file)
    invoked: list[None] = []
    monkeypatch.setattr(session, "invoke", lambda: invoked.append(None))
    monkeypatch.setattr(runtime, "open", lambda *_, **__: session)

    _talk(Settings("any", None, 1, None, warmup=4), requests=5)

    assert len(invoked) == 4 + 5


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    replies = _talk(Settings(str(tmp_path / "no.onnx"), None, 1, None, 1), requests=1)

    assert replies == [{"error": f"{tmp_path}/no.onnx: no such file; 'reslite export' makes one"}]


class _Shaped:
    def __init__(self, scale: int, fixed_size: tuple[int, int] | None) -> None:
        self.scale, self.fixed_size = scale, fixed_size


@pytest.mark.parametrize(
    ("scale", "fixed", "wanted", "expected"),
    [
        (4, None, None, (180, 320)),
        (3, None, None, (240, 426)),
        (2, None, (64, 48), (64, 48)),
        (2, (48, 48), (64, 48), (48, 48)),
    ],
)
def test_input_size(
    scale: int,
    fixed: tuple[int, int] | None,
    wanted: tuple[int, int] | None,
    expected: tuple[int, int],
) -> None:
    assert input_size(_Shaped(scale, fixed), wanted) == expected  # type: ignore[arg-type]


def _printed_by_a_child(command: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from benchmarks.devices.timing_worker import peak_memory; {command}",
        ],
        capture_output=True,
        check=True,
        env=environment,
    )
    return int(child.stdout)


def test_peak_memory_grows_with_what_is_held() -> None:
    # In a process of its own, where no earlier test held more.
    hold = "before = peak_memory(); held = b'1' * (64 << 20); print(peak_memory() - before)"
    assert _printed_by_a_child(hold) > 56 << 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a Linux pitfall")
def test_peak_memory_is_not_inherited_from_the_parent() -> None:
    held = np.ones(300 << 20, np.uint8)
    assert _printed_by_a_child("print(peak_memory())") < held.nbytes
