from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UserError
from tools.refresh import RESULTS, SHOWN, rewrite


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
    names = ["scores", "shdd", "multadds", *(f"artifacts {name}" for name in SHOWN)]
    rewrite(page, dict.fromkeys(names, "new"))
    assert page.read_text().count("\nnew\n") == len(names)
