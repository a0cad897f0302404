"""docs/networks.md is what a run of all architectures makes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.networks_table import CANDIDATES, COLLECTION, PAGE, Candidate, line_of, row_of

if find_spec("spandrel") is None:
    pytest.skip("needs the spandrel extra", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda one: one.name)
def test_the_line_of_an_architecture_is_what_a_run_makes(
    candidate: Candidate, tmp_path: Path
) -> None:
    assert line_of(row_of(candidate, tmp_path)) in PAGE.read_text(encoding="utf-8").splitlines()


def test_most_of_the_public_collection_becomes_files() -> None:
    passing, refused = PAGE.read_text(encoding="utf-8").split("Refused")
    counted = sum(one.models for one in CANDIDATES if f"| {one.name} |" in passing)
    assert f": {counted} of them" in passing.replace("\n", " ")
    assert counted >= 0.74 * COLLECTION
    assert all(f"| {one.name} |" in passing + refused for one in CANDIDATES)
