from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch.utils.tensorboard.writer import SummaryWriter

from benchmarks.report.curves import draw_curves, logged_runs, read_curves
from runtime.errors import UserError
from training.catalogue import Model, find_model
from training.checkpoint import save_tensors
from training.recipe_reading import load_recipe


def test_curves_are_those_of_the_log(tmp_path: Path) -> None:
    log = SummaryWriter(str(tmp_path / "run"))
    for step, seconds, psnr in ((10, 60, 25.5), (20, 120, 26.25), (20, 120, 26.25)):
        log.add_scalar("psnr/x2", psnr + 4, step)
        log.add_scalar("psnr/x4", psnr, step)
        log.add_scalar("seconds", seconds, step)
    log.close()
    curves = read_curves(tmp_path / "run")
    assert [(curve.name, curve.scale) for curve in curves] == [("run", 2), ("run", 4)]
    assert curves[1].seconds == (60, 120)
    assert curves[1].psnr == (25.5, 26.25)

    pictures = [tmp_path / name for name in ("a.svg", "b.svg")]
    for picture in pictures:
        draw_curves(curves, picture)
    text = pictures[0].read_text()
    assert text == pictures[1].read_text()
    assert "hours of optimizer steps" in text


def test_a_run_is_drawn_with_those_it_began_with(tmp_path: Path) -> None:
    recipe = load_recipe("mepsnet-s", ["network.blocks=1"])
    tensors = recipe.network.build().state_dict()

    def trained(name: str, steps: int, *starts: Model, **scores: object) -> Model:
        path = tmp_path / name / "weights.safetensors"
        SummaryWriter(str(path.parent)).close()
        begun = [start.record for start in starts]
        record = {"steps": steps, "hours": 0.1, "start": begun, **scores}
        metadata = {"recipe": recipe.model_dump_json(), "training": json.dumps(record)}
        save_tensors(path, tensors, metadata)
        return find_model(str(path))

    first = trained("first", 100)
    # Published, a run's weights get scores and so another hash; they lie elsewhere.
    published = trained("elsewhere/published", 100, psnr={"set5": {"4": 31.9}})
    assert published.sha256 != first.sha256
    second, third = trained("second", 200, published), trained("third", 300, first)
    last = trained("last", 400, second, third)
    trained("another", 500, first)
    next(third.path.parent.glob("events*")).unlink()
    assert [run.name for run in logged_runs(last.path)] == ["first", "second", "last"]


def test_a_folder_without_validations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no TensorBoard log"):
        read_curves(tmp_path)
