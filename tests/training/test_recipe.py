from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runtime.errors import UserError
from training.recipe import Recipe
from training.recipe_reading import load_recipe, recipe_names
from training.run import schedule


def _with(tmp_path: Path, **changes: object) -> str:
    content = load_recipe("carn-m").model_dump(mode="json") | changes
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid_and_named_after_their_file(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"los": "l1"}, "unknown key 'los'; did you mean 'loss'"),
        ({"optimizer": {"learningrate": 1, "clip_norm": 1}}, "did you mean 'learning_rate'"),
        ({"network": {"chanels": 64}}, "did you mean 'channels'"),
        ({"stages": [{"steps": 1, "patch": 24, "batches": 8}]}, "did you mean 'batch'"),
        ({"stages": []}, "stages"),
        ({"loss": "l3"}, "loss: Input should be 'l1', 'l2' or 'rmse' \\(found 'l3'\\)"),
        ({"network": {"groups": 7}}, "cannot be divided"),
        ({"network": {"groups": 0}}, "expected 1 or more of each"),
        ({"network": {"scales": [4, 4]}}, "expected some of 2, 3 and 4, each once"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"scale_weights": {2: -1, 4: 3}}, "scale_weights.2: Input should be greater"),
        ({"sizes": [float("inf")]}, "sizes.0: Input should be a finite number"),
        (
            {"optimizer": {"learning_rate": 1, "clip_norm": 1, "betas": [1.5, 0.9]}},
            "optimizer.betas.0: Input should be less than 1",
        ),
        ({"network": {"family": "mepsnett"}}, "network.family: .* did you mean 'mepsnet'"),
        ({"network": {"family": "mepsnet", "expert": 3}}, "did you mean 'experts'"),
        ({"degradation": "shdd-easy"}, "does not go with scales"),
        (
            {"degradation": "bicubik"},
            r"degradation: expected one of bicubic, .* \(found 'bicubik'\); did you mean 'bicubic'",
        ),
        ({"revive_at": [5, -1]}, "revive_at.1: Input should be greater than or equal to 0"),
        (
            {"identity_weight": 2},
            "yaml: identity_weight and untouched go with degradations that keep the size, not",
        ),
        ({"untouched": 0.2}, "yaml: identity_weight and untouched go with degradations"),
        ({"network": {"family": "mepsnet"}}, "does not go with scales"),
        (
            {
                "network": {"family": "mepsnet"},
                "degradation": "shdd-easy",
                "any_phase": False,
                "revive_at": [0],
            },
            "yaml: revive_at does not go with networks of the family mepsnet$",
        ),
    ],
)
def test_mistakes_are_named_with_their_remedy(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(_with(tmp_path, **changes))


def test_keys_are_changed_from_the_command_line() -> None:
    recipe = load_recipe("mepsnet", ["network.experts=1", "network.sharing=false", "name=one"])
    assert recipe.name == "one"
    assert (recipe.network.experts, recipe.network.sharing) == (1, False)  # type: ignore[union-attr]
    assert recipe.network.channels == 64
    for change, message in (
        ("network.expert=1", "did you mean 'experts'"),
        ("network.experts", "expected KEY=VALUE"),
        ("name.first=1", "'name' of the recipe holds no keys"),
        ("seed=[", "not valid YAML"),
    ):
        with pytest.raises(UserError, match=message):
            load_recipe("mepsnet", [change])


def test_a_missing_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'carn-m'"):
        load_recipe("carn_m")


@pytest.mark.parametrize("text", ["a: [", "- a list", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_recipe(str(path))


def _recipe(**optimizer: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "network": {},
            "stages": [
                {"steps": 60, "patch": 8, "batch": 1},
                {"steps": 40, "patch": 16, "batch": 2},
            ],
            "optimizer": {"learning_rate": 1.0, "clip_norm": 1.0, "warmup": 10} | optimizer,
        }
    )


def test_stages_follow_each_other() -> None:
    recipe = _recipe()
    assert recipe.steps == 100
    assert [recipe.stage_at(step).patch for step in (0, 59, 60, 99, 100)] == [8, 8, 16, 16, 16]


def test_the_trapezoid_warms_up_stays_and_falls() -> None:
    recipe = _recipe(schedule="trapezoid", decay=50, final_fraction=0.1)
    rates = [schedule(recipe, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10:50] == [1.0] * 40
    assert rates[75] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[99] == pytest.approx(0.1 + 0.9 * 0.02)


def test_cosine_and_halving_follow_their_formulas() -> None:
    cosine = _recipe(schedule="cosine", final_fraction=0.0)
    assert schedule(cosine, 55) == pytest.approx(0.5)
    halving = _recipe(schedule="halving", halvings=(30, 60, 90))
    assert [schedule(halving, step) for step in (29, 30, 60, 99)] == [1.0, 0.5, 0.25, 0.125]
