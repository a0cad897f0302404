"""Reading of recipes: one YAML file per network, checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from runtime.errors import UserError, nearest
from training.augmentations.kinds import AUGMENTATIONS
from training.configuration import Configuration
from training.degradations.kinds import DEGRADATION_STEPS
from training.losses.kinds import LOSSES
from training.methods.kinds import METHODS
from training.networks.families import CONFIGS, family_of
from training.optimization import OptimizerOptions
from training.recipe import Data, Execution, Recipe, Stage, Validation
from training.recipe_versions import PLACES, present_version

RECIPES = Path(__file__).parent / "recipes"

LISTS: Mapping[str, Mapping[str, Any]] = {
    "network": CONFIGS,
    "degradation": DEGRADATION_STEPS,
    "augment": AUGMENTATIONS,
    "losses": LOSSES,
    "method": METHODS,
}
"""The keys of a recipe whose value is one of several kinds, or a list of such values."""

SECTIONS: Mapping[int | str, type[Configuration]] = {
    "data": Data,
    "stages": Stage,
    "optimizer": OptimizerOptions,
    "validation": Validation,
    "execution": Execution,
}
"""The keys of a recipe whose value is a section, or a list of equal sections."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with reslite."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe that ships with reslite, by name, or any YAML file, by path.

    Args:
        name_or_path: The recipe.
        changes: Values to replace in it, such as ``network.experts=1``, in YAML's spelling.

    Raises:
        UserError: If there is no such recipe or it does not fit the schema. An unknown key is
            answered with the nearest known one.
    """
    shipped = RECIPES / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"{name_or_path}: no such recipe; expected a YAML file or one of "
            f"{', '.join(recipe_names())}{nearest(name_or_path, recipe_names())}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of recipe keys at the top level")
    content = present_version(content)
    for change in changes:
        _apply(change, content)
    return parse_recipe(content, str(path))


def _apply(change: str, content: dict[str, Any]) -> None:
    """Set the value of ``key.key=value`` in the content of a recipe, in place."""
    key, given, text = change.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{change}: the value is not valid YAML") from error
    *path, last = key.split(".")
    if not given or not last:
        raise UserError(f"{change}: expected KEY=VALUE, for example network.experts=1")
    place: Any = content
    for part in path:
        if isinstance(place, dict):
            place = place.setdefault(part, _defaults_of(part) if place is content else {})
        else:
            place = place[_index(change, part, place)]
        if not isinstance(place, dict | list):
            raise UserError(f"{change}: '{part}' of the recipe holds no keys; replace it whole")
    if isinstance(place, list):
        place[_index(change, last, place)] = value
    else:
        place[last] = value


def _defaults_of(section: str) -> Any:
    """Return what a recipe that does not name a section has there, for a change of its entries."""
    field = Recipe.model_fields.get(section)
    if field is None or not isinstance(field.default, tuple):
        return {}
    return [one.model_dump(exclude_unset=True) | {"kind": one.kind} for one in field.default]


def _index(change: str, part: str, entries: list[Any]) -> int:
    if not part.isdigit() or int(part) >= len(entries):
        raise UserError(
            f"{change}: '{part}' is no entry of a list of {len(entries)}, which count from 0; "
            "replace the list whole to add one"
        )
    return int(part)


def parse_recipe(content: Mapping[str, Any], origin: str) -> Recipe:
    """Check ``content`` against the schema; ``origin`` names it in errors."""
    try:
        return Recipe.model_validate(present_version(content))
    except ValidationError as error:
        raise UserError(f"{origin}: {'; '.join(_complaints(error))}") from error


def _complaints(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        section = str(item["loc"][0]) if item["loc"] else ""
        kinds = LISTS.get(section, {})
        # pydantic names the kind between an entry and its key; the recipe does not.
        place = [str(part) for part in item["loc"] if part not in kinds]
        where = ".".join(place)
        if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            moved = PLACES.get(where)
            hint = (
                f"; it is {moved} now" if moved else nearest(place[-1], _keys_beside(item["loc"]))
            )
            yield f"unknown key '{where}'{hint}"
        elif item["type"] == "missing" and where == "version":
            yield "no version is given; add 'version: 2'"
        elif item["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            key = "family" if section == "network" else "kind"
            given = item["input"] if isinstance(item["input"], dict) else {}
            found = family_of(given) if section == "network" else str(given.get("kind", "nothing"))
            yield (
                f"{where}.{key}: expected one of {', '.join(kinds)} (found '{found}')"
                f"{nearest(found, list(kinds))}"
            )
        elif item["type"] == "value_error":
            message = str(item["ctx"]["error"])
            yield f"{where}: {message}" if where else message  # keys that do not go together
        else:
            yield f"{where}: {item['msg']} (found {item['input']!r})"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys the schema knows at the place of the unknown one."""
    schema: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, int) or part in LISTS:
            continue
        kinds = LISTS.get(str(location[0]), {})
        schema = kinds.get(part) or SECTIONS[part]
    if isinstance(schema, type) and issubclass(schema, Configuration):
        return list(schema.model_fields)
    return list(inspect.signature(schema).parameters)
