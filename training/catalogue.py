"""The trained networks that ship with reslite, and loading of any weights it trained.

A weights file is a ``.safetensors`` whose metadata holds the recipe (from which the network is
rebuilt) and the training record: data, steps, hours, machine and measured scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from runtime.errors import UserError, nearest
from runtime.manifest import sha256_of
from training.checkpoint import load_tensors
from training.networks.interface import RestorationNetwork
from training.recipe import Recipe
from training.recipe_reading import parse_recipe, recipe_names
from training.recipe_versions import present_version
from training.shipped import WEIGHTS_FOLDER, json_object, metadata_of
from training.tasks import Task


@dataclass(frozen=True)
class Model:
    """A network with trained weights on disk.

    Attributes:
        name: Name on the command line, for example ``carn-m``.
        path: The file of the weights.
        recipe: The recipe of the training, including the shape of the network.
        training: The training record: steps, hours, data, machine, scores.
    """

    name: str
    path: Path
    recipe: Recipe
    training: dict[str, Any]

    @property
    def scales(self) -> tuple[int, ...]:
        """Upscaling factors the network was trained for."""
        return self.recipe.network.scales

    @property
    def task(self) -> Task:
        """What the network undoes, and how it is scored."""
        return self.recipe.task

    @property
    def architecture(self) -> str:
        """The family of the network, as recipes spell it."""
        return self.recipe.network.family

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights file."""
        return sha256_of(self.path)

    @property
    def provenance(self) -> dict[str, Any]:
        """The training record and the recipe, for manifests."""
        return {**self.training, "recipe": self.recipe.model_dump(mode="json")}

    @property
    def record(self) -> dict[str, Any]:
        """Hash, recipe and training record, as stored by runs that begin with these weights."""
        recipe = self.recipe.model_dump(mode="json")
        return {"sha256": self.sha256, "recipe": recipe, **self.training}

    def network(self) -> RestorationNetwork:
        """Load the network with its weights, in evaluation mode."""
        network = self.recipe.network.build()
        tensors, _ = load_tensors(self.path)
        if not all(one.isfinite().all() for one in tensors.values()):
            raise UserError(
                f"{self.path}: weights must be finite numbers, but some are not; train again"
            )
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(
                f"{self.path}: the weights do not fit the network of their recipe; train again"
            ) from error
        return network.eval()

    def chosen_scale(self, scale: int | None) -> int:
        """Return ``scale``, or the network's only scale if None.

        Raises:
            UserError: If the network has no such scale, or several to choose from.
        """
        known = ", ".join(map(str, self.scales))
        if scale is None:
            if len(self.scales) > 1:
                raise UserError(f"{self.name}: name the upscaling factor with --scale: {known}")
            return self.scales[0]
        if scale not in self.scales:
            raise UserError(f"{self.name}: scale {scale} was not trained; choose one of {known}")
        return scale

    def at_scale(self, scale: int) -> nn.Module:
        """Load the network reduced to one scale.

        Raises:
            UserError: If the network has no such scale.
        """
        return self.network().at_scale(self.chosen_scale(scale)).eval()


def list_models() -> list[Model]:
    """Return the models that ship with reslite, by name."""
    return [_read_model(path) for path in sorted(WEIGHTS_FOLDER.glob("*.safetensors"))]


def find_model(name_or_path: str) -> Model:
    """Return a shipped model by name, or the model of a ``.safetensors`` file.

    Raises:
        UserError: If neither exists; the message suggests the nearest name.
    """
    path = Path(name_or_path)
    if path.suffix and path.suffix != ".safetensors" and path.exists():
        raise UserError(
            f"{path}: weights are .safetensors; a {path.suffix} file cannot be trusted or is an "
            "artifact, not a network"
        )
    if path.suffix == ".safetensors":
        return _read_model(path)
    for model in list_models():
        if model.name == name_or_path:
            return model
    names = [model.name for model in list_models()]
    if name_or_path in recipe_names():
        raise UserError(
            f"{name_or_path}: ships as a recipe without weights; train it with 'reslite train "
            f"{name_or_path}' and name the weights file that it writes"
        )
    raise UserError(
        f"{name_or_path}: no such model; expected a .safetensors file or one of "
        f"{', '.join(names)}{nearest(name_or_path, names)}"
    )


_PUBLISHED = {"sha256", "start", "psnr", "worst", "ssim", "kinds", "distorted"}
"""Keys ignored when records are compared: added by publishing, or about earlier runs."""


def starts(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the training records of the weights that a run began with."""
    found = record.get("start", [])  # Older records hold a single start instead of a list.
    return [found] if isinstance(found, Mapping) else found


def history(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the records of a run and of all runs before it, each once, the latest first."""
    runs: list[Mapping[str, Any]] = []
    waiting = [record]
    while waiting:
        run = waiting.pop(0)
        if not any(same_run(run, one) for one in runs):
            runs.append(run)
            waiting += starts(run)
    return runs


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two records describe one run: equal hashes, or equal but for publishing."""
    if "sha256" in one and one["sha256"] == other.get("sha256"):
        return True
    if "recipe" not in one or "recipe" not in other:
        return False
    first, second = (
        {key: run[key] for key in run.keys() - _PUBLISHED}
        | {"recipe": present_version(run["recipe"])}
        for run in (one, other)
    )
    return _agree(first, second)


def _agree(one: Any, other: Any) -> bool:
    """Tell whether two records say the same where both say something: recipes have grown keys."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_agree(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    return bool(one == other)


def file_stem(model: str, scale: int) -> str:
    """Return the common prefix of a model's file names, for example ``carn_m_x4``."""
    return f"{model.replace('-', '_')}_x{scale}"


def _read_model(path: Path) -> Model:
    metadata = metadata_of(path)
    recipe = parse_recipe(json_object(path, metadata["recipe"]), str(path))
    return Model(recipe.name, path, recipe, json_object(path, metadata.get("training", "{}")))
