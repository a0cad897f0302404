from __future__ import annotations

from pathlib import Path

import pytest

from reslite.refresh import PUBLISHED, rewrite
from runtime.errors import UserError


def test_rewrite_replaces_the_named_sections_only(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- scores -->\nold\n<!-- /scores -->\nb\n<!-- x -->\n<!-- /x -->\n")
    rewrite(page, {"scores": "| new |", "x": "y"})
    expected = "a\n<!-- scores -->\n| new |\n<!-- /scores -->\nb\n<!-- x -->\ny\n<!-- /x -->\n"
    assert page.read_text() == expected
    with pytest.raises(UserError, match="has no section <!-- z -->"):
        rewrite(page, {"z": ""})
    assert page.read_text() == expected


def test_published_scores_are_the_papers() -> None:
    # DESIGN.md section 6: the check values of CARN-M ×4.
    assert [PUBLISHED["carn-m"][name][2] for name in ("set5", "set14", "b100")] == [
        31.92,
        28.42,
        27.44,
    ]
