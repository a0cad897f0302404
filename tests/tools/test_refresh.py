from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UserError
from tools.refresh import PUBLISHED, PUBLISHED_SHDD, RESULTS, SHIPPED, effort, rewrite, shdd_table
from training.catalogue import find_model


def test_rewrite_replaces_the_named_sections_only(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- scores -->\nold\n<!-- /scores -->\nb\n<!-- x -->\n<!-- /x -->\n")
    rewrite(page, {"scores": "| new |", "x": "y"})
    expected = "a\n<!-- scores -->\n| new |\n<!-- /scores -->\nb\n<!-- x -->\ny\n<!-- /x -->\n"
    assert page.read_text() == expected
    with pytest.raises(UserError, match="has no section <!-- z -->"):
        rewrite(page, {"z": ""})
    assert page.read_text() == expected


def test_the_page_has_a_section_for_everything_that_is_measured_again(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_bytes(RESULTS.read_bytes())
    names = ["scores", "shdd", "multadds", *(f"artifacts {name}" for name in SHIPPED)]
    rewrite(page, dict.fromkeys(names, "new"))
    assert page.read_text().count("\nnew\n") == len(names)


def test_published_scores_are_the_papers() -> None:
    # DESIGN.md section 6: the check values of CARN-M ×4.
    assert [PUBLISHED["carn-m"][name][2] for name in ("set5", "set14", "b100")] == [
        31.92,
        28.42,
        27.44,
    ]


def test_effort_counts_what_a_run_started_from_once() -> None:
    first = {"sha256": "1", "steps": 7_600, "hours": 0.69}
    assert effort({"steps": 7_600, "hours": 0.69}) == "7,600 steps, 0.7 h"
    second = {"sha256": "2", "steps": 2_250, "hours": 0.36, "start": first}
    assert effort({"steps": 100, "hours": 0.0, "start": [second]}) == "9,950 steps, 1.0 h"
    assert effort({"steps": 100, "hours": 0.0, "start": [first, second]}) == "9,950 steps, 1.0 h"
    run = {**second, "recipe": {"seed": 1}}
    published = {**run, "sha256": "3", "psnr": {"4": 31.8}, "recipe": {"seed": 1, "new": 0}}
    another = {**run, "sha256": "4", "recipe": {"seed": 2}}
    assert effort({"steps": 1, "hours": 0.0, "start": [run, published]}) == "9,851 steps, 1.0 h"
    assert effort({"steps": 1, "hours": 0.0, "start": [run, another]}) == "12,101 steps, 1.4 h"


def test_the_table_of_shdd_has_every_level_beside_the_thesis_and_every_kind() -> None:
    assert PUBLISHED_SHDD == {"easy": 34.23, "moderate": 33.47, "difficult": 32.71}  # issue 3
    table = shdd_table([find_model("mepsnet-s")])
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    for level, thesis in PUBLISHED_SHDD.items():
        assert rows[level].endswith(f"| {thesis} |")
    for kind in ("noise", "blur", "f-noise", "contrast", "identity"):
        assert f"{kind} regions" in rows
