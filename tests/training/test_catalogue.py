from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.errors import UserError
from training.catalogue import file_stem, find_model, list_models
from training.checkpoint import save_tensors
from training.shipped import metadata_of


def test_shipped_models_load_with_their_provenance() -> None:
    models = list_models()
    assert [model.name for model in models] == ["carn", "carn-m", "mepsnet", "mepsnet-s"]
    for model in models:
        assert model.training["steps"] == model.recipe.steps
    for model in models[:2]:
        assert model.scales == (2, 3, 4)
        assert set(model.training["psnr"]) == {"set5", "set14", "b100"}
        picture = torch.rand(1, 3, 5, 4)
        assert model.at_scale(4)(picture).shape == (1, 3, 20, 16)
    assert models[2].chosen_scale(None) == 1
    assert models[2].at_scale(1)(torch.rand(1, 3, 5, 4)).shape == (1, 3, 5, 4)


def test_unknown_names_and_scales_are_answered_with_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"one of carn, carn-m, mepsnet, mepsnet-s; did you mean 'carn-m'\?"
    ):
        find_model("carnm")
    with pytest.raises(UserError, match="scale 5 was not trained; choose one of 2, 3, 4"):
        find_model("carn-m").at_scale(5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"nonsense", "not a safetensors file"),
        ("a.pth", b"\x80\x02", "weights are .safetensors"),
        ("missing.safetensors", None, "no such weights file"),
    ],
)
def test_files_that_are_no_weights_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_model(str(tmp_path / name))


def test_weights_without_or_against_their_recipe_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"weight": torch.zeros(2)}, {})
    with pytest.raises(UserError, match="holds no recipe"):
        find_model(str(path))
    recipe = find_model("carn").recipe.model_dump_json()
    for damaged in ({"recipe": "{"}, {"recipe": "[]"}, {"recipe": recipe, "training": "[]"}):
        save_tensors(path, {"weight": torch.zeros(2)}, damaged)
        with pytest.raises(UserError, match="its recipe or training record is damaged"):
            find_model(str(path))
    save_tensors(path, {"weight": torch.zeros(2)}, {"recipe": recipe})
    with pytest.raises(UserError, match="do not fit"):
        find_model(str(path)).network()
    save_tensors(path, {"weight": torch.tensor([0.0, torch.inf])}, {"recipe": recipe})
    with pytest.raises(UserError, match="must be finite numbers"):
        find_model(str(path)).network()


def test_file_stem() -> None:
    assert file_stem("carn-m", 4) == "carn_m_x4"


def test_headers_are_read_alone_and_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"weight": torch.zeros(2), "bias": torch.ones(1)}, {"recipe": "{}"})
    assert metadata_of(path) == {"recipe": "{}"}
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"\0", whole[:20], whole[:4]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a safetensors file, or damaged"):
            metadata_of(path)
