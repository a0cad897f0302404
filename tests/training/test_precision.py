from __future__ import annotations

from itertools import accumulate, cycle
from pathlib import Path

import pytest

from training import precision
from training.precision import faster_precision, with_precision
from training.recipe_reading import load_recipe
from training.run import Run


@pytest.mark.parametrize(("first", "second", "expected"), [(3, 5, "bf16"), (5, 3, "float32")])
def test_the_faster_one_is_chosen(
    first: int, second: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bf16 takes the first time of every round, float32 the second.
    clock = accumulate(cycle((0, first, 0, second)))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    assert faster_precision() == expected


def test_a_recipe_that_has_decided_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "faster_precision", lambda device: "float32")
    assert (
        with_precision(load_recipe("carn", ["execution.precision=bf16"])).execution.precision
        == "bf16"
    )
    assert with_precision(load_recipe("carn")).execution.precision == "float32"


def test_a_run_keeps_what_was_found_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("carn-m")
    assert recipe.execution.precision == "auto"
    found = iter(["bf16", "float32"])
    monkeypatch.setattr(precision, "faster_precision", lambda device: next(found))
    run = Run.begin(recipe)
    run.save(tmp_path / "checkpoint.safetensors")

    resumed = Run.resume(tmp_path / "checkpoint.safetensors", recipe)

    assert (run.recipe.execution.precision, resumed.recipe.execution.precision) == ("bf16", "bf16")
