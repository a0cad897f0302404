"""Recipes: one YAML file per network, checked against a typed schema before anything runs."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from runtime.errors import UserError
from training.networks.families import CONFIGS, AnyNetworkConfig, family_of
from training.tasks import SUPER_RESOLUTION, TASKS, Task

RECIPES = Path(__file__).parent / "recipes"

_Beta = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(_Strict):
    """A stretch of training with one patch size and batch size.

    Small patches in small batches learn fastest at first; larger patches refine at the end.
    """

    steps: int = Field(gt=0)
    patch: int = Field(ge=8, description="side of the low-resolution patch in pixels")
    batch: int = Field(gt=0)


class OptimizerOptions(_Strict):
    """Adam or Muon, with a linear warm-up and then the schedule over all steps.

    ``muon`` steps kernels by Muon at ``learning_rate`` and everything else by Adam at
    ``adam_learning_rate``; ``adam`` steps everything by Adam at ``learning_rate``.

    ``trapezoid`` stays at the learning rate and falls linearly to ``final_fraction`` of it over the
    last ``decay`` steps, so that the number of steps can change until the fall begins. ``cosine``
    falls from the start; ``halving`` halves at the steps of ``halvings``, as the papers do.
    """

    kind: Literal["adam", "muon"] = "adam"
    learning_rate: float = Field(gt=0)
    adam_learning_rate: float | None = Field(default=None, gt=0)
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    weight_decay: float = Field(
        default=0.0, ge=0, description="fraction of a parameter subtracted by a step at rate 1"
    )
    warmup: int = Field(default=500, ge=0)
    schedule: Literal["trapezoid", "cosine", "halving"] = "trapezoid"
    decay: int = Field(default=5000, gt=0)
    final_fraction: float = Field(default=0.01, ge=0, le=1)
    large_kernels_every: int = Field(
        default=1,
        ge=1,
        description="kernels with at least 256 rows and columns are updated by Muon every N-th "
        "step, with an N times larger step",
    )
    halvings: tuple[int, ...] = (200_000, 400_000)
    clip_norm: float = Field(gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)


class Recipe(_Strict):
    """Everything that determines a training run, besides the pictures themselves."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="files are named after it")
    network: AnyNetworkConfig
    stages: tuple[Stage, ...] = Field(min_length=1)
    optimizer: OptimizerOptions
    degradation: str = Field(default=SUPER_RESOLUTION.name, description="see training.tasks")
    scale_weights: dict[int, NonNegativeFloat] = Field(default_factory=dict)
    all_scales: bool = Field(
        default=False, description="each step takes patches of all scales, not of a random scale"
    )
    loss: Literal["l1", "l2", "rmse"] = Field(
        default="l1", description="rmse is the root of each patch's l2"
    )
    luma: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="weight of luma (as in PSNR-Y) in the loss, 0 to 1; R, G and B get the rest",
    )
    identity_weight: float = Field(
        default=1.0, gt=0, description="weight of undistorted pixels in the loss"
    )
    untouched: float = Field(
        default=0.0, ge=0, le=1, description="share of patches of pictures that nothing befell"
    )
    permute_colours: bool = Field(
        default=False, description="permute the colour channels of every patch at random"
    )
    sizes: tuple[PositiveFloat, ...] = Field(
        default=(1.0,), min_length=1, description="factors that every picture is resized by"
    )
    by_area: bool = Field(
        default=False, description="draw pictures in proportion to their area, not equally often"
    )
    any_phase: bool = Field(
        default=False,
        description="cut patches at any pixel, not only where the reduced picture has pixels",
    )
    revive_at: tuple[NonNegativeInt, ...] = Field(
        default=(), description="steps before which dead channels are revived"
    )
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="auto selects the faster of the two by a short measurement"
    )
    masked_dense: bool = False
    compiled: bool = Field(
        default=False, description="train the network through torch.compile; pays on CUDA"
    )
    seed: NonNegativeInt = 0
    start: tuple[str, ...] = Field(
        default=(), description="models or weights files to begin with; several are averaged"
    )
    train_folder: str = "train"
    valid_folder: str = "valid"
    validate_every: int = Field(default=5000, gt=0)
    checkpoint_every: int = Field(default=1000, gt=0)

    @field_validator("start", mode="before")
    @classmethod
    def _one_start_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value or ()

    @field_validator("degradation")
    @classmethod
    def _degradation_is_known(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(
                f"expected one of {', '.join(TASKS)} (found '{name}'){nearest(name, list(TASKS))}"
            )
        return name

    @model_validator(mode="after")
    def _degradation_fits_the_other_keys(self) -> Recipe:
        name, degradation = self.degradation, self.task.degradation
        if any((scale > 1) != degradation.reduces for scale in self.network.scales):
            does = "reduces pictures" if degradation.reduces else "keeps their size"
            raise ValueError(
                f"degradation '{name}' does not go with scales {self.network.scales}: it {does}"
            )
        if degradation.reduces and (self.identity_weight != 1 or self.untouched):
            raise ValueError(
                "identity_weight and untouched go with degradations that keep the size, not with "
                f"'{name}'"
            )
        if degradation.of_windows is None and (self.sizes != (1,) or self.any_phase):
            raise ValueError(
                f"sizes and any_phase go with degradations of patches, not with '{name}', which "
                "degrades whole pictures"
            )
        if self.network.colours != 3:
            raise ValueError(
                f"network.colours={self.network.colours} is for counting MultAdds; pictures to "
                "train on are RGB: leave it at 3"
            )
        if self.revive_at and not self.network.revivable:
            raise ValueError(
                f"revive_at does not go with networks of the family {self.network.family}"
            )
        return self

    @model_validator(mode="after")
    def _scales_share_every_batch(self) -> Recipe:
        if not any(map(self._weight, self.network.scales)):
            raise ValueError(f"scale_weights {self.scale_weights}: leave no scale to train")
        shares = [self.weight_of(scale) for scale in self.network.scales if self.all_scales]
        for stage in self.stages:
            sizes = [stage.batch * share for share in shares]
            if not all(math.isclose(size, round(size)) for size in sizes):
                raise ValueError(
                    f"the scales cannot share a batch of {stage.batch} by their weights "
                    f"{self.scale_weights}: choose a multiple of the weights' sum"
                )
        return self

    def _weight(self, scale: int) -> float:
        return self.scale_weights.get(scale, 1.0)

    def weight_of(self, scale: int) -> float:
        """Return the part of all training that a scale gets, 0 to 1."""
        return self._weight(scale) / sum(map(self._weight, self.network.scales))

    @property
    def task(self) -> Task:
        """What the network undoes, and how it is scored."""
        return TASKS[self.degradation]

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
    place = content
    for part in path:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"{change}: '{part}' of the recipe holds no keys; replace it whole")
        place = inner
    if not given or not last:
        raise UserError(f"{change}: expected KEY=VALUE, for example network.experts=1")
    place[last] = value


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
        # pydantic names the family between 'network' and its key; the recipe does not.
        place = [str(part) for part in item["loc"] if part not in CONFIGS]
        where = ".".join(place)
        if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            yield f"unknown key '{where}'{nearest(place[-1], _keys_beside(item['loc']))}"
        elif item["type"] == "union_tag_invalid":
            known, found = list(CONFIGS), family_of(item["input"])
            yield (
                f"network.family: expected one of {', '.join(known)} (found '{found}')"
                f"{nearest(found, known)}"
            )
        elif item["type"] == "value_error":
            message = str(item["ctx"]["error"])
            yield f"{where}: {message}" if where else message  # keys that do not go together
        else:
            yield f"{where}: {item['msg']} (found {item['input']!r})"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys the schema knows at the place of the unknown one."""
    if location[0] == "network":
        return list(inspect.signature(CONFIGS[str(location[1])]).parameters)
    parents = {"stages": Stage, "optimizer": OptimizerOptions}
    schema = parents.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    return list(schema.__annotations__)
