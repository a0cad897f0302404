"""The families of networks and the configuration of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Discriminator, Tag

from training.networks.btsrn import BtsrnConfig
from training.networks.carn import CarnConfig
from training.networks.dncnn import DncnnConfig
from training.networks.drcn import DrcnConfig
from training.networks.drrn import DrrnConfig
from training.networks.edsr import EdsrConfig
from training.networks.espcn import EspcnConfig
from training.networks.fsrcnn import FsrcnnConfig
from training.networks.imdn import ImdnConfig
from training.networks.interface import NetworkConfig
from training.networks.lapsrn import LapsrnConfig
from training.networks.mdsr import MdsrConfig
from training.networks.memnet import MemnetConfig
from training.networks.mepsnet import MepsnetConfig
from training.networks.rcan import RcanConfig
from training.networks.rdn import RdnConfig
from training.networks.selnet import SelnetConfig
from training.networks.span import SpanConfig
from training.networks.srcnn import SrcnnConfig
from training.networks.srdensenet import SrdensenetConfig
from training.networks.srresnet import SrresnetConfig
from training.networks.vdsr import VdsrConfig

CONFIGS: Mapping[str, type[NetworkConfig]] = {
    "btsrn": BtsrnConfig,
    "carn": CarnConfig,
    "dncnn": DncnnConfig,
    "drcn": DrcnConfig,
    "drrn": DrrnConfig,
    "edsr": EdsrConfig,
    "espcn": EspcnConfig,
    "fsrcnn": FsrcnnConfig,
    "imdn": ImdnConfig,
    "lapsrn": LapsrnConfig,
    "mdsr": MdsrConfig,
    "memnet": MemnetConfig,
    "mepsnet": MepsnetConfig,
    "rcan": RcanConfig,
    "rdn": RdnConfig,
    "selnet": SelnetConfig,
    "span": SpanConfig,
    "srcnn": SrcnnConfig,
    "srdensenet": SrdensenetConfig,
    "srresnet": SrresnetConfig,
    "vdsr": VdsrConfig,
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
