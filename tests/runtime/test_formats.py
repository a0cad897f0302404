"""Every format has what its record promises, and its system is known by one spelling."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from runtime.formats import BY_SUFFIX, FORMATS, USUAL_FORMATS, Format

ROOT = Path(__file__).parents[2]


def test_every_format_has_a_record_of_its_own() -> None:
    assert tuple(FORMATS) == get_args(Format)
    assert len(BY_SUFFIX) == len({one.title for one in FORMATS.values()}) == len(FORMATS)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in BY_SUFFIX)


def test_every_engine_has_a_module() -> None:
    engines = [name for one in FORMATS.values() for name in one.engines]
    assert engines
    assert all(find_spec(f"runtime.engines.{name}_engine") for name in engines)


@pytest.mark.parametrize(
    ("platform", "runs"),
    [
        ("linux", {"tflite", "onnx", "coreai"}),
        ("win32", {"tflite", "onnx"}),
        ("darwin", set(FORMATS)),
    ],
)
def test_formats_run_on_their_systems(
    monkeypatch: pytest.MonkeyPatch, platform: str, runs: set[str]
) -> None:
    monkeypatch.setattr("sys.platform", platform)

    assert {name for name, one in FORMATS.items() if one.runs_here()} == runs
    assert FORMATS["coreml"].not_run == "not run (needs macOS)"
    assert FORMATS["onnx"].not_run is None


def test_formats_that_need_an_extra_wait_to_be_asked_for() -> None:
    assert USUAL_FORMATS == ("tflite", "onnx", "coreml")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {one.extra for one in FORMATS.values()} - {None} <= set(extras)
