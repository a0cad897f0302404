"""The families of networks: which configuration describes which class."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from training.networks.carn import Carn, CarnConfig
from training.networks.interface import RestorationNetwork
from training.networks.mepsnet import Mepsnet, MepsnetConfig

CONFIGS: dict[str, type[CarnConfig] | type[MepsnetConfig]] = {
    "carn": CarnConfig,
    "mepsnet": MepsnetConfig,
}


def family_of(config: Any) -> str:
    """Return the family that a configuration, parsed or not, is of; CARN unless it says so."""
    if isinstance(config, dict):
        return str(config.get("family", "carn"))
    return str(getattr(config, "family", ""))


NetworkConfig = Annotated[
    Annotated[CarnConfig, Tag("carn")] | Annotated[MepsnetConfig, Tag("mepsnet")],
    Discriminator(family_of),
]
"""The network of a recipe, told apart by its key ``family``."""


def build_network(config: CarnConfig | MepsnetConfig) -> RestorationNetwork:
    """Return the network that ``config`` describes, freshly initialized."""
    if isinstance(config, MepsnetConfig):
        return Mepsnet(config)
    return Carn(config)
