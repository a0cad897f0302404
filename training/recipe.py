"""Recipes: one YAML file per network, checked against a typed schema before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.errors import UserError
from training.networks.carn import CarnConfig

RECIPES = Path(__file__).parent / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Strict):
    """A stretch of training with one patch size and batch size.

    Small patches in small batches learn fastest at first; larger ones refine at the end.
    """

    steps: int = Field(gt=0)
    patch: int = Field(ge=8, description="side of the low-resolution patch in pixels")
    batch: int = Field(gt=0)


class Optimizer(_Strict):
    """Adam, with a linear warm-up and then the schedule over all steps.

    ``trapezoid`` stays at the learning rate and falls linearly to ``final_fraction`` of it over the
    last ``decay`` steps: a run can be lengthened or shortened until the fall begins and still be
    the run its recipe describes. ``cosine`` falls from the start; ``halving`` halves every
    ``halve_every`` steps, as the papers do.
    """

    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = Field(default=500, ge=0)
    schedule: Literal["trapezoid", "cosine", "halving"] = "trapezoid"
    decay: int = Field(default=5000, gt=0)
    final_fraction: float = Field(default=0.01, ge=0, le=1)
    halve_every: int = Field(default=200_000, gt=0)
    clip_norm: float = Field(gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)


class Recipe(_Strict):
    """Everything that determines a training run, besides the pictures themselves."""

    name: str
    network: CarnConfig
    stages: tuple[Stage, ...] = Field(min_length=1)
    optimizer: Optimizer
    scale_weights: dict[int, float] = Field(default_factory=dict)
    loss: Literal["l1", "l2"] = "l1"
    precision: Literal["bf16", "float32"] = "bf16"
    masked_dense: bool = False
    seed: int = 0
    train_folder: str = "train"
    valid_folder: str = "valid"
    validate_every: int = Field(default=5000, gt=0)
    checkpoint_every: int = Field(default=1000, gt=0)

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """Return the stage that ``step`` (from 0) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with reslite."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe that ships with reslite, by name, or any YAML file, by path.

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
    return parse_recipe(content, str(path))


def parse_recipe(content: Mapping[str, Any], origin: str) -> Recipe:
    """Check ``content`` against the schema; ``origin`` names it in errors."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{origin}: {'; '.join(_complaints(error))}") from error


def nearest(word: str, known: list[str]) -> str:
    """Return '; did you mean …?' with the known word nearest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _complaints(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            key = str(item["loc"][-1])
            yield f"unknown key '{where}'{nearest(key, _keys_beside(item['loc']))}"
        else:
            yield f"{where}: {item['msg']} (found {item['input']!r})"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys the schema knows at the place of the unknown one."""
    parents = {"network": CarnConfig, "stages": Stage, "optimizer": Optimizer}
    schema = parents.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    return list(schema.__annotations__)
