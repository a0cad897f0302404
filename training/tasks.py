"""Tasks: what a network undoes, how it is scored, what it is compared with.

A task is named after its degradation. Any degradation of a recipe makes one: its networks are
scored on the standard sets, degraded likewise. The tasks of ``TASKS`` have names on the command
line and, of SHDD, pictures of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from runtime.errors import UserError
from runtime.manifest import Manifest
from training.data.pictures import Picture
from training.degradations import bicubic, shdd
from training.degradations.degradation import Degradation, DegradationStep
from training.degradations.kinds import AnyDegradationStep, in_a_row
from training.degradations.levels import Level, ScoredLevel
from training.metrics import LUMA, RGB, Scoring
from training.recipe_versions import present_version


@dataclass(frozen=True)
class EvaluationSet:
    """Degraded pictures that the scores of trained networks are published on.

    Attributes:
        name: Its key in training records, for example ``set5``.
        title: Name in tables.
        degradation: How the pictures are degraded.
        folders: Folders below ``RESLITE_DATA``, and the number of pictures of each; None for all.
        split: Name of the sets that are scored together; empty for a set on its own.
        seed: Seed of the choice among the pictures of a folder.
    """

    name: str
    title: str
    degradation: Degradation
    folders: Mapping[str, int | None]
    split: str = ""
    seed: int = 7


@dataclass(frozen=True)
class Task:
    """What a network undoes, how the result is scored and what it is compared with.

    Attributes:
        degradation: What the network undoes.
        scoring: How restored pictures are compared with their originals.
        baseline: The comparison without a network: turns a degraded picture and the scale into a
            picture of the original's size.
        baseline_name: Name of the baseline in tables.
        evaluation: The sets that published scores are measured on, in the order of tables.
        calibration_crop: Side in pixels of the degraded crops that int8 ranges are measured on.
        range_method: The method that chooses int8 ranges (``quantize.methods``), unless the user
            names another.
    """

    degradation: Degradation
    scoring: Scoring
    baseline: Callable[[Picture, int], Picture]
    baseline_name: str
    evaluation: tuple[EvaluationSet, ...]
    calibration_crop: int
    range_method: str

    @property
    def name(self) -> str:
        """The name of the degradation."""
        return self.degradation.name

    def sets_named(self, name: str) -> tuple[EvaluationSet, ...]:
        """Return the evaluation sets of a split, or the one set of this name.

        Raises:
            UserError: If there are none; the message lists the known names.
        """
        found = tuple(one for one in self.evaluation if name in (one.name, one.split))
        if not found:
            splits = [one.split for one in self.evaluation if one.split]
            known = dict.fromkeys([*splits, *(one.name for one in self.evaluation)])
            raise UserError(
                f"{name}: no such split of '{self.name}'; expected one of {', '.join(known)}"
            )
        return found


def super_resolution(degradation: Degradation) -> Task:
    """Return the task of enlarging: scored on luma, against bicubic interpolation."""
    return Task(
        degradation,
        scoring=LUMA,
        baseline=bicubic.enlarge,
        baseline_name="bicubic",
        evaluation=_standard_sets(degradation),
        calibration_crop=48,  # wider than CARN's receptive field
        range_method="cautious",
    )


def restoration(degradation: Degradation, evaluation: tuple[EvaluationSet, ...] = ()) -> Task:
    """Return the task of restoring at the same size: scored on RGB, against the input itself."""
    return Task(
        degradation,
        scoring=RGB,
        baseline=lambda picture, scale: picture,
        baseline_name="distorted",
        evaluation=evaluation or _standard_sets(degradation),
        # Wider than the receptive field of mepsnet-s, with room for several regions, so that the
        # features pooled over a crop come from a mixture of distortions.
        calibration_crop=96,
        # Rare large values carry the picture itself (docs/lab/quantization.md).
        range_method="measured",
    )


def _standard_sets(degradation: Degradation) -> tuple[EvaluationSet, ...]:
    titles = {"set5": "Set5", "set14": "Set14", "b100": "B100"}
    return tuple(
        EvaluationSet(name, title, degradation, {f"{name}/HR": None})
        for name, title in titles.items()
    )


_SHDD_SPLIT = "shdd-test"
_SHDD_PICTURES = {"valid": 4, "b100/HR": 8}
CLEAN = EvaluationSet(
    "clean",
    "clean",
    shdd.DEGRADATIONS["untouched"],
    # All of them: what counts is the worst picture.
    {"valid": None, "b100/HR": None},
    _SHDD_SPLIT,
)
"""Whole pictures that nothing befell: a network has to return them as they are."""
_SHDD_SETS = (
    *(
        EvaluationSet(one.name, f"SHDD {level}", one, _SHDD_PICTURES, _SHDD_SPLIT)
        for level, one in shdd.DEGRADATIONS.items()
        if level != "untouched"
    ),
    CLEAN,
)

SUPER_RESOLUTION = super_resolution(bicubic.DEGRADATION)
"""Enlarging pictures that were reduced by MATLAB's bicubic interpolation."""

SHDD: Mapping[ScoredLevel, Task] = {
    level: restoration(one, _SHDD_SETS) for level, one in shdd.DEGRADATIONS.items()
}
"""Restoring distortions that differ from region to region, and leaving untouched pictures alone."""


def _by_name(*tasks: Task) -> Mapping[str, Task]:
    return {task.name: task for task in tasks}


TASKS = _by_name(
    SUPER_RESOLUTION,
    *(SHDD[level] for level in get_args(Level)),
)
"""The tasks that have a name on the command line."""


@lru_cache
def task_of(steps: tuple[DegradationStep, ...]) -> Task:
    """Return the task of undoing a degradation.

    Raises:
        ValueError: If the steps do not go together.
    """
    degradation = in_a_row(steps)
    if degradation.name in TASKS:
        return TASKS[degradation.name]
    return super_resolution(degradation) if degradation.reduces else restoration(degradation)


def task_named(name: str) -> Task:
    """Return a task by the name of its degradation.

    Raises:
        UserError: If there is no task of this name.
    """
    if name not in TASKS:
        raise UserError(f"{name}: no such task; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def task_of_manifest(manifest: Manifest | None, scale: int) -> Task:
    """Return the task of an exported file.

    The recipe in the manifest names the degradation. Without a manifest or recipe, a network that
    enlarges is taken for bicubic super-resolution and a network that keeps the size for restoration
    of SHDD; a caller who knows better passes the task instead.

    Raises:
        UserError: If the recipe is of a task that this version of reslite does not know.
    """
    recipe = manifest.training.get("recipe") if manifest is not None else None
    if isinstance(recipe, Mapping):
        return _task_of_recipe(recipe)
    return SUPER_RESOLUTION if scale > 1 else SHDD["moderate"]


def _task_of_recipe(recipe: Mapping[str, Any]) -> Task:
    steps = present_version(recipe).get("degradation", [{"kind": SUPER_RESOLUTION.name}])
    try:
        return task_of(tuple(_STEPS.validate_python(steps)))
    except ValidationError as error:
        raise UserError(
            f"degradation: this version of reslite does not know {json.dumps(steps)}; install the "
            "one that trained the network"
        ) from error


_STEPS = TypeAdapter(tuple[AnyDegradationStep, ...])
