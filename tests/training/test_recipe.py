from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runtime.errors import UserError
from training.losses.distance import Distance
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
        ({"los": "l1"}, "unknown key 'los'; did you mean 'losses'"),
        ({"luma": 0.9}, "unknown key 'luma'; it is losses.0.luma now"),
        ({"optimizer": {"learningrate": 1, "clip_norm": 1}}, "did you mean 'learning_rate'"),
        ({"network": {"chanels": 64}}, "did you mean 'channels'"),
        ({"stages": [{"steps": 1, "patch": 24, "batches": 8}]}, "did you mean 'batch'"),
        ({"data": {"by_aria": True}}, "unknown key 'data.by_aria'; did you mean 'by_area'"),
        ({"losses": [{"kind": "l1", "lumma": 1}]}, "'losses.0.lumma'; did you mean 'luma'"),
        ({"losses": [{"luma": 1}]}, r"losses.0.kind: expected one of l1, .* \(found 'nothing'\)"),
        ({"losses": []}, "losses: Tuple should have at least 1 item"),
        ({"losses": "l1"}, "losses: Input should be a valid tuple"),
        ({"stages": []}, "stages"),
        (
            {"losses": [{"kind": "rmsee"}]},
            r"losses.0.kind: expected one of l1, l2, .* \(found 'rmsee'\); did you mean 'rmse'",
        ),
        ({"augment": [{"kind": "flip"}]}, "augment.0.kind: expected .* did you mean 'flips'"),
        ({"network": {"groups": 7}}, "cannot be divided"),
        ({"network": {"groups": 0}}, "expected 1 or more of each"),
        ({"network": {"scales": [4, 4]}}, "expected some of 2, 3 and 4, each once"),
        ({"method": {"kind": "adverserial"}}, "method.kind: .* did you mean 'adversarial'"),
        ({"method": {"kind": "adversarial", "pool": [1]}}, "did you mean 'pools'"),
        (
            {"method": {"all_scale": True}},
            "unknown key 'method.all_scale'; did you .* 'all_scales'",
        ),
        (
            {"validation": {"metrics": ["lpip"]}},
            "metrics.0: Input should be 'psnr', 'ssim', 'lpips'",
        ),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"version": 3}, "version: Input should be 2 \\(found 3\\)"),
        ({"method": {"scale_weights": {2: -1, 4: 3}}}, "scale_weights.2: Input should be greater"),
        ({"data": {"sizes": [float("inf")]}}, "data.sizes.0: Input should be a finite number"),
        (
            {"optimizer": {"learning_rate": 1, "clip_norm": 1, "betas": [1.5, 0.9]}},
            "optimizer.betas.0: Input should be less than 1",
        ),
        ({"network": {"family": "mepsnett"}}, "network.family: .* did you mean 'mepsnet'"),
        ({"network": {"family": "mepsnet", "expert": 3}}, "did you mean 'experts'"),
        ({"degradation": [{"kind": "shdd", "level": "easy"}]}, "does not go with scales"),
        (
            {"degradation": [{"kind": "bicubik"}]},
            r"degradation.0.kind: .* \(found 'bicubik'\); did you mean 'bicubic'",
        ),
        (
            {"degradation": [{"kind": "bicubic"}, {"kind": "bicubic"}]},
            "yaml: only one step may reduce pictures",
        ),
        ({"method": {"revive_at": [5, -1]}}, "revive_at.1: Input should be greater than or equal"),
        (
            {"losses": [{"kind": "l1", "identity_weight": 2}]},
            "yaml: losses: identity_weight goes with degradations that keep the size, not",
        ),
        (
            {"augment": [{"kind": "untouched", "share": 0.2}]},
            "yaml: augment: untouched goes with degradations that keep the size",
        ),
        ({"network": {"family": "mepsnet"}}, "does not go with scales"),
        (
            {
                "network": {"family": "mepsnet"},
                "degradation": [{"kind": "shdd", "level": "easy"}],
                "data": {},
                "method": {"revive_at": [0]},
            },
            "yaml: method.revive_at does not go with networks of the family mepsnet$",
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
    (loss,) = load_recipe("carn", ["losses.0.luma=0.5"]).losses
    assert isinstance(loss, Distance) and (loss.kind, loss.luma) == ("rmse", 0.5)
    for change, message in (
        ("network.expert=1", "did you mean 'experts'"),
        ("network.experts", "expected KEY=VALUE"),
        ("name.first=1", "'name' of the recipe holds no keys"),
        ("seed=[", "not valid YAML"),
        ("losses.1.luma=0", "'1' is no entry of a list of 1"),
        ("losses.first.luma=0", "'first' is no entry of a list of 1"),
        ("loss=l1", "unknown key 'loss'; it is losses.0.kind now"),
    ):
        with pytest.raises(UserError, match=message):
            load_recipe("mepsnet", [change])


def test_a_missing_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'carn-m'"):
        load_recipe("carn_m")


def test_a_recipe_of_sections_needs_its_version(tmp_path: Path) -> None:
    content = load_recipe("carn").model_dump(mode="json")
    del content["version"]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="no version is given; add 'version: 2'"):
        load_recipe(str(path))


@pytest.mark.parametrize("text", ["a: [", "- a list", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_recipe(str(path))


def _recipe(**optimizer: object) -> Recipe:
    return Recipe.model_validate(
        {
            "version": 2,
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
