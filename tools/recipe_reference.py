"""Writes docs/recipe.md, every section of a recipe with its keys, from the schema itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from training.configuration import Configuration, Entry
from training.recipe import Recipe
from training.recipe_reading import LISTS, SECTIONS

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"

_HEAD = """\
# Recipes

A recipe is one YAML file, checked against its schema before anything runs. This page is made from
that schema by `python -m tools.recipe_reference`; `reslite train --schema` prints it for editors.
The shipped recipes stand in `training/recipes/`, [train.md](train.md) says how to train. `--set`
changes a key on the command line: `--set losses.0.luma=0.9`, `--set 'augment=[{kind: flips}]'`.

Degradation, augmentations and losses are lists of entries, told apart by their `kind` and taken in
their order. Recipes of version 1, in older files and weights, are read as what they meant.
"""

_KINDS = {name: kinds for name, kinds in LISTS.items() if name != "network"}


def page() -> str:
    """Return the text of docs/recipe.md."""
    parts = [_HEAD, "## The recipe\n", _table(Recipe)]
    for name in Recipe.model_fields:
        if name in SECTIONS:
            parts += [f"## `{name}`\n", _summary(SECTIONS[name]), _table(SECTIONS[name])]
        elif name in _KINDS:
            parts.append(f"## `{name}`\n")
            for entry in dict.fromkeys(_KINDS[name].values()):
                kinds = [f"`{kind}`" for kind, one in _KINDS[name].items() if one is entry]
                parts += [f"### {', '.join(kinds)}\n", _summary(entry)]
                parts += [_table(entry)] if entry.model_fields.keys() - {"kind"} else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def _summary(section: type[Configuration]) -> str:
    text = inspect.cleandoc(section.__doc__ or "").replace("``", "`")
    return text + "\n"


def _table(section: type[Configuration]) -> str:
    return (
        "\n".join(["| key | values | default | |", "| --- | --- | --- | --- |", *_rows(section)])
        + "\n"
    )


def _rows(section: type[Configuration]) -> Iterator[str]:
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        if name == "kind" and issubclass(section, Entry):
            continue
        if field.default is not PydanticUndefined:
            default = _spelt(field.default)
        else:
            default = _spelt(field.default_factory()) if field.default_factory else "needed"  # type: ignore[call-arg]
        if section is Recipe and (name in SECTIONS or name in _KINDS):
            values, text = f"[below](#{name})", field.description or ""
        else:
            values, text = _values(properties[name]), field.description or ""
        yield f"| `{name}` | {values} | {default} | {text} |"


def _spelt(value: Any) -> str:
    if isinstance(value, Configuration):
        return ""
    if isinstance(value, tuple) and value and isinstance(value[0], Configuration):
        return ", ".join(f"`{one.model_dump()['kind']}`" for one in value)
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(schema: Mapping[str, Any]) -> str:
    """Return the type and the range of a key, from its JSON schema."""
    if "anyOf" in schema:
        return _values(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        inner = schema.get("items") or schema.get("prefixItems", [{}])[0]
        return f"list: {_values(inner)}"
    if schema.get("type") == "object":
        return f"mapping: {_values(schema.get('additionalProperties', {}))}"
    words = {"integer": "integer", "number": "number", "boolean": "true, false", "string": "text"}
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    parts = [f"{sign} {schema[key]:g}" for key, sign in limits.items() if key in schema]
    name = words.get(str(schema.get("type")), "a network of [some family](field.md)")
    return " ".join([name, ", ".join(parts)]).strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
