"""The families of networks and the configuration of each."""

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
"""The configuration of each family; a new family is a module, a recipe and a line here."""


def family_of(config: Any) -> str:
    """Return the family of a configuration, parsed or not; ``carn`` if the key is missing."""
    if isinstance(config, dict):
        return str(config.get("family", "carn"))
    return str(getattr(config, "family", ""))


if TYPE_CHECKING:
    AnyNetworkConfig: TypeAlias = NetworkConfig
else:  # a union made from the list, which mypy cannot read
    AnyNetworkConfig = Annotated[
        Union[tuple(Annotated[one, Tag(family)] for family, one in CONFIGS.items())],  # noqa: UP007
        Discriminator(family_of),
    ]
"""The network of a recipe, told apart by its key ``family``."""
