"""docs/recipe.md says what the schema says."""

from __future__ import annotations

import json

import pytest

from reslite.__main__ import main
from tools import recipe_reference
from training.recipe import Recipe


def test_the_page_is_made_from_the_present_schema() -> None:
    assert recipe_reference.PAGE.read_text(encoding="utf-8") == recipe_reference.page()


def test_every_key_has_a_row_and_a_sentence() -> None:
    page = recipe_reference.page()
    schema = Recipe.model_json_schema()
    sections = {name: one for name, one in schema["$defs"].items() if not name.endswith("Config")}
    for name, section in sections.items():
        for key in section["properties"].keys() - {"kind"}:
            rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
            assert rows, f"{name}.{key}"
            assert all(row.split("|")[4].strip() for row in rows), f"{name}.{key}"


def test_editors_get_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"network", "stages", "optimizer", "losses"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False
