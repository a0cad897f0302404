"""Measurements from elsewhere are checked: nonsense is refused with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.measurement import Measurement, utc_now
from runtime.records import RecordError, from_json, to_json


def test_a_measurement_survives_json(measurement: Callable[..., Measurement]) -> None:
    made = measurement(samples=(1.5, 2.0), facts={"governor": "schedutil", "battery": 80})

    assert from_json(Measurement, to_json(made)) == made


def test_a_browser_that_writes_whole_numbers_is_understood(
    measurement: Callable[..., Measurement],
) -> None:
    content = {**to_json(measurement()), "samples": [3, 4], "load": 0}

    assert from_json(Measurement, content).samples == (3.0, 4.0)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("samples", [1.0, 0.0], "positive and finite"),
        ("samples", [float("nan")], "positive and finite"),
        ("samples", [float("inf")], "positive and finite"),
        ("samples", [-3.0], "positive and finite"),
        ("samples", ["fast"], "a number expected"),
        ("run", "1", "32 hexadecimal digits"),
        ("sha256", "0" * 63, "SHA-256"),
        ("evidence", "guessed", "'measured' or"),
        ("role", "winner", "'file' or"),
        ("size", [0, 64], "1 or more"),
        ("when", "yesterday", "UTC"),
        ("when", "2026-12-01T14:05:09+01:00", "UTC"),
        ("when", "2026-12-01T14:05:09", "UTC"),
        ("load", 1.5, "0 to 1"),
        ("threads", 0, "1 or more"),
        ("machine", "x" * 1001, "at most 1000"),
        ("file", "", "a name"),
        ("speed", 3, "unknown key"),
    ],
)
def test_nonsense_is_refused(
    key: str, value: Any, expected: str, measurement: Callable[..., Measurement]
) -> None:
    content = {**to_json(measurement()), key: value}

    with pytest.raises(RecordError, match=expected):
        from_json(Measurement, content)


def test_now_is_a_time_that_measurements_take(measurement: Callable[..., Measurement]) -> None:
    assert measurement(when=utc_now()).when.endswith("+00:00")
