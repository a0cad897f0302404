"""The verdicts of the gate: for terminals, programs (JSON), test reports (JUnit), pull requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from benchmarks.gate import Deviation, Verdict
from benchmarks.report.tables import text_table
from benchmarks.snapshots import Entry

_HEADER = ("artifact", "quantity", "expected", "found", "tolerance")


def as_text(verdict: Verdict) -> str:
    """Return the verdict for a terminal: a line, or a table and the command that accepts it."""
    found = verdict.found
    if verdict.deviations:
        rows = [dataclasses.astuple(one) for one in verdict.deviations]
        return "\n".join([text_table(_HEADER, rows), " ".join(_advice(verdict))])
    if verdict.updated is not None:
        return f"baseline updated: {verdict.updated} ({_basis(verdict)})"
    count = len(found.artifacts)
    return f"gate passed: {count} artifacts of {verdict.title} are as expected ({_basis(verdict)})"


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the verdicts as values for ``json.dumps``."""
    return {
        "passed": not any(one.deviations for one in verdicts),
        "bundles": [
            {
                "model": one.found.model,
                "scale": one.found.scale,
                "artifacts": [entry.file for entry in one.found.artifacts],
                "pictures": list(one.found.pictures),
                "compared_with": one.found.compared_with,
                "updated": None if one.updated is None else str(one.updated),
                "deviations": [dataclasses.asdict(deviation) for deviation in one.deviations],
            }
            for one in verdicts
        ],
    }


def as_junit(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as JUnit XML: a suite for each bundle, a case for each file."""
    root = ElementTree.Element("testsuites")
    for verdict in verdicts:
        cases = _by_artifact(verdict)
        failures = sum(bool(deviations) for deviations in cases.values())
        counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
        name = f"reslite gate {verdict.title}"
        suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts})
        for artifact, deviations in cases.items():
            names = {"classname": verdict.title, "name": artifact}
            case = ElementTree.SubElement(suite, "testcase", names)
            if deviations:
                lines = [_sentence(one) for one in deviations]
                failure = ElementTree.SubElement(case, "failure", {"message": lines[0]})
                failure.text = "\n".join([*lines, " ".join(_advice(verdict))])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as Markdown, as pull requests and job summaries show it."""
    return "\n".join(_markdown(verdict) for verdict in verdicts)


def _markdown(verdict: Verdict) -> str:
    count = len(verdict.deviations)
    outcome = "passed" if verdict.updated is None else "baseline updated"
    if count:
        outcome = f"{count} deviation{'s' if count > 1 else ''}"
    files = {entry.file: entry for entry in verdict.found.artifacts}
    rows = [
        (f"`{name}`", *_figures(files.get(name)), f"{len(found)} deviating" if found else "ok")
        for name, found in _by_artifact(verdict).items()
    ]
    lines = [f"## Gate: {verdict.title}: {outcome}", "", f"Measured on {_basis(verdict)}.", ""]
    lines += _table(("file", "kB", "PSNR dB", "SSIM", "largest difference", ""), rows)
    if verdict.deviations:
        deviating = [dataclasses.astuple(one) for one in verdict.deviations]
        lines += ["", *_table(_HEADER, deviating), ""]
        sentence, *command = _advice(verdict)
        lines += [sentence, *(line for one in command for line in ("", "```sh", one, "```"))]
    return "\n".join([*lines, ""])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def _figures(entry: Entry | None) -> tuple[str, ...]:
    """Return size, PSNR, SSIM and largest difference of a file, dashes where there is none."""
    if entry is None:
        return ("–", "–", "–", "–")
    size, quality = f"{entry.bytes / 1e3:.1f}", entry.quality
    if quality is None:
        return (size, "–", "–", "–")
    return (size, f"{quality.psnr:.3f}", f"{quality.ssim:.5f}", f"{quality.max_abs_diff:.1e}")


def _by_artifact(verdict: Verdict) -> dict[str, list[Deviation]]:
    """Return the deviations of each file, also of missing ones, and of the bundle by its model."""
    found: dict[str, list[Deviation]] = {one.file: [] for one in verdict.found.artifacts}
    for deviation in verdict.deviations:
        found.setdefault(deviation.artifact, []).append(deviation)
    return dict(sorted(found.items()))


def _advice(verdict: Verdict) -> list[str]:
    """Return what to do about deviations: a sentence, and a command if one is meant."""
    if verdict.accept is None:
        return ["Files that fail a check of their own are no baseline: make the bundle anew."]
    return ["If this is intended, accept it as the new baseline:", verdict.accept]


def _sentence(one: Deviation) -> str:
    return f"{one.quantity}: {one.expected} expected, {one.found} found ({one.tolerance})"


def _basis(verdict: Verdict) -> str:
    """Say what was measured on and compared with."""
    found = verdict.found
    return f"{len(found.pictures)} pictures; largest differences are from {found.compared_with}"
