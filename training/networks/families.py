"""The families of networks: which configuration describes which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Discriminator, Tag

from training.networks.carn import CarnConfig
from training.networks.interface import NetworkConfig
from training.networks.mepsnet import MepsnetConfig

CONFIGS: Mapping[str, type[NetworkConfig]] = {
    "carn": CarnConfig,
    "mepsnet": MepsnetConfig,
}
"""The configuration of each family: one more is a module with its recipe and a line here."""


def family_of(config: Any) -> str:
    """Return the family that a configuration, parsed or not, is of; CARN unless it says so."""
    if isinstance(config, dict):
        return str(config.get("family", "carn"))
    return str(getattr(config, "family", ""))


if TYPE_CHECKING:
    AnyNetworkConfig: TypeAlias = NetworkConfig
else:  # a union made from the list, which mypy cannot follow
    AnyNetworkConfig = Annotated[
        Union[tuple(Annotated[one, Tag(family)] for family, one in CONFIGS.items())],  # noqa: UP007
        Discriminator(family_of),
    ]
"""The network of a recipe, told apart by its key ``family``."""
