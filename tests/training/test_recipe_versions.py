"""Recipes of version 1, which published weights hold, mean what they meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.losses.distance import Distance
from training.recipe import Recipe
from training.recipe_reading import parse_recipe
from training.shipped import WEIGHTS_FOLDER, metadata_of

WEIGHTS = sorted(WEIGHTS_FOLDER.glob("*.safetensors"))


def _as_version_1(recipe: Recipe) -> dict[str, Any]:
    """Return what version 1 said of a recipe that it can express."""
    (loss,) = recipe.losses
    assert isinstance(loss, Distance)
    flips, *others = recipe.augment
    assert flips.kind == "flips"
    shares = [one.model_dump()["share"] for one in others if one.kind == "untouched"]
    network = json.loads(recipe.model_dump_json())["network"]
    return {
        "name": recipe.name,
        "network": network,
        "stages": [one.model_dump() for one in recipe.stages],
        "optimizer": recipe.optimizer.model_dump(mode="json"),
        "degradation": recipe.task.name,
        "scale_weights": {str(one): part for one, part in recipe.method.scale_weights.items()},
        "all_scales": recipe.method.all_scales,
        "loss": loss.kind,
        "luma": loss.luma,
        "identity_weight": loss.identity_weight,
        "untouched": shares[0] if shares else 0.0,
        "permute_colours": any(one.kind == "permuted-colours" for one in others),
        "sizes": list(recipe.data.sizes),
        "by_area": recipe.data.by_area,
        "any_phase": recipe.data.any_phase,
        "revive_at": list(recipe.method.revive_at),
        "precision": recipe.execution.precision,
        "masked_dense": recipe.execution.masked_dense,
        "compiled": recipe.execution.compiled,
        "seed": recipe.seed,
        "start": list(recipe.start),
        "train_folder": recipe.data.train,
        "valid_folder": recipe.data.valid,
        "validate_every": recipe.validation.every,
        "checkpoint_every": recipe.checkpoint_every,
    }


@pytest.mark.parametrize("path", WEIGHTS, ids=[path.stem for path in WEIGHTS])
def test_the_recipes_in_published_weights_keep_their_meaning(path: Path) -> None:
    held = json.loads(metadata_of(path)["recipe"])
    if "version" in held:
        pytest.skip("trained after version 1")
    meant = _as_version_1(parse_recipe(held, str(path)))
    # Configurations have grown keys since, whose defaults describe the older networks.
    meant["network"] = {key: meant["network"][key] for key in held["network"]}
    assert {key: meant[key] for key in held} == held
    # Version 1 gained keys, too.
    assert {key: meant[key] for key in meant.keys() - held.keys()} == {
        key: value
        for key, value in {"untouched": 0.0, "any_phase": False, "sizes": [1.0]}.items()
        if key not in held
    }


def test_a_recipe_is_unchanged_by_being_written_and_read() -> None:
    held = json.loads(metadata_of(WEIGHTS[0])["recipe"])
    recipe = parse_recipe(held, "weights")
    assert parse_recipe(json.loads(recipe.model_dump_json()), "again") == recipe
