"""The gate's verdicts say the same in every form: text, JSON, JUnit and Markdown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.gate import Deviation, Verdict
from benchmarks.report.gate_summary import as_json, as_junit, as_markdown, as_text
from benchmarks.snapshots import Entry, Quality, Snapshot

ACCEPT = "reslite gate --update --bundle dist --baseline baseline.json"


def _entry(file: str, quality: Quality | None) -> Entry:
    return Entry(file, "onnx", "float32", 1500, 1, {}, quality)


PASSED = Verdict(
    Snapshot(
        model="mine",
        scale=2,
        weights_sha256="a" * 64,
        pictures=("a.png", "b.png"),
        pictures_sha256="b" * 64,
        compared_with="mine_x2_float32.onnx",
        artifacts=(
            _entry("mine_x2_float32.onnx", Quality(30.25, 0.875, 0.0, (), 0.0)),
            _entry("mine_x2_float16.mlpackage", None),
        ),
    ),
    (),
    ACCEPT,
)
PSNR = Deviation("mine_x2_float32.onnx", "PSNR dB", "30.500", "30.250", "±0.02")
MISSING = Deviation("mine_x2_int8.onnx", "artifact", "present", "missing", "exact")
FAILED = dataclasses.replace(PASSED, deviations=(PSNR, MISSING))
UPDATED = dataclasses.replace(PASSED, updated=Path("baseline.json"))


def test_a_passed_verdict_says_what_was_compared() -> None:
    assert as_text(PASSED) == (
        "gate passed: 2 artifacts of mine ×2 are as expected (2 pictures; largest differences are "
        "from mine_x2_float32.onnx)"
    )
    assert as_text(UPDATED).startswith("baseline updated: baseline.json (2 pictures; ")


def test_json_holds_everything() -> None:
    found = json.loads(json.dumps(as_json([PASSED, FAILED])))

    assert found["passed"] is False
    assert as_json([PASSED])["passed"] is True
    passed, failed = found["bundles"]
    assert passed["artifacts"] == ["mine_x2_float32.onnx", "mine_x2_float16.mlpackage"]
    assert (passed["model"], passed["scale"], passed["pictures"]) == ("mine", 2, ["a.png", "b.png"])
    assert passed["compared_with"] == "mine_x2_float32.onnx"
    assert passed["deviations"] == []
    assert passed["updated"] is None
    assert as_json([UPDATED])["bundles"][0]["updated"] == "baseline.json"
    assert failed["deviations"][1] == {
        "artifact": "mine_x2_int8.onnx",
        "quantity": "artifact",
        "expected": "present",
        "found": "missing",
        "tolerance": "exact",
    }


def test_junit_has_a_case_for_each_file_present_or_missing() -> None:
    root = ElementTree.fromstring(as_junit([FAILED, PASSED]).encode())

    failed, passed = root.findall("testsuite")
    assert (failed.get("name"), failed.get("tests"), failed.get("failures")) == (
        "reslite gate mine ×2",
        "3",
        "2",
    )
    assert (passed.get("tests"), passed.get("failures")) == ("2", "0")
    cases = {case.get("name"): case.find("failure") for case in failed.findall("testcase")}
    assert cases["mine_x2_float16.mlpackage"] is None
    failure = cases["mine_x2_float32.onnx"]
    assert failure is not None
    assert failure.get("message") == "PSNR dB: 30.500 expected, 30.250 found (±0.02)"
    assert failure.text is not None and failure.text.endswith(ACCEPT)
    assert cases["mine_x2_int8.onnx"] is not None


def test_markdown_shows_figures_deviations_and_the_way_out() -> None:
    lines = as_markdown([FAILED]).splitlines()

    assert lines[0] == "## Gate: mine ×2: 2 deviations"
    assert "| `mine_x2_float32.onnx` | 1.5 | 30.250 | 0.87500 | 0.0e+00 | 1 deviating |" in lines
    assert "| `mine_x2_float16.mlpackage` | 1.5 | – | – | – | ok |" in lines
    assert "| `mine_x2_int8.onnx` | – | – | – | – | 1 deviating |" in lines
    assert "| mine_x2_float32.onnx | PSNR dB | 30.500 | 30.250 | ±0.02 |" in lines
    assert lines[-3:] == ["```sh", ACCEPT, "```"]
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {7, 6}

    passed = as_markdown([PASSED])
    assert passed.startswith("## Gate: mine ×2: passed\n")
    assert "largest differences are from mine_x2_float32.onnx" in passed
    assert "accept" not in passed
    assert as_markdown([UPDATED]).startswith("## Gate: mine ×2: baseline updated\n")


@pytest.mark.parametrize("written", [as_text(FAILED), as_junit([FAILED]), as_markdown([FAILED])])
def test_files_that_fail_their_own_check_are_not_to_be_accepted(written: str) -> None:
    assert ACCEPT in written
    refused = dataclasses.replace(FAILED, accept=None)
    for text in (as_text(refused), as_junit([refused]), as_markdown([refused])):
        assert "--update" not in text
        assert "make the bundle anew" in text
