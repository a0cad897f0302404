"""Variants: the files that a network is exported to, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from export.graph import Graph
from export.profiles import DEFAULT_PROFILES, Profile, profile_named
from export.rewrites.pooling import restores_tiles
from runtime.errors import UserError
from runtime.formats import FORMATS, USUAL_FORMATS, Format, Ports, Precision
from training.catalogue import file_stem


@dataclass(frozen=True)
class Variant:
    """One of the files that a network is exported to.

    Attributes:
        format: The file format.
        precision: The precision of its weights and activations.
        float_io: For int8 TFLite: float32 input and output around the integer network.
        size: Fixed height and width of the input, or None for any size.
        profile: Target profile, or None for the format's default.
        flexible: For Core ML: least and greatest side of the input, in place of enumerated sizes.
        ports: For Core ML: what it takes and returns.
        tiled: Cut at the global pooling, to restore tiles in two passes (see
            ``export.rewrites.pooling``).
    """

    format: Format
    precision: Precision
    float_io: bool = False
    size: tuple[int, int] | None = None
    profile: str | None = None
    flexible: tuple[int, int] | None = None
    tiled: bool = False
    ports: Ports = "float32"

    @property
    def target(self) -> Profile:
        """The target profile.

        Raises:
            UserError: If no profile has this name, or the profile is for another format.
        """
        profile = profile_named(self.profile or DEFAULT_PROFILES[self.format])
        if profile.format != self.format:
            raise UserError(f"profile {profile.name} is for {profile.format}, not {self.format}")
        return profile

    def companion(self, graph: Graph) -> Variant | None:
        """Return the variant that restores tiles for this one, or None if it needs none.

        Networks that pool globally need one, unless they pool in several places and restore no
        tiles, or the input has a fixed size of at most twice the halo: such tiles have no pixels
        beside their halo.
        """
        room = self.size is None or min(self.size) > 2 * graph.halo()
        needless = self.tiled or not graph.pools_globally
        if needless or not room or not restores_tiles(graph):
            return None
        return dataclasses.replace(self, tiled=True, float_io=False)

    def file_name(self, model: str, scale: int) -> str:
        """Return the name of the file, for example ``carn_m_x4_int8.tflite``."""
        parts = [file_stem(model, scale), self.precision]
        default = DEFAULT_PROFILES[self.format]
        if self.profile is not None and self.profile != default:
            parts.append(self.profile.replace("-", "_"))
        if self.float_io:
            parts.append("float_io")
        if self.ports != "float32":
            parts.append(f"{self.ports}_io")
        if self.tiled:
            parts.append("tiled")
        if self.size is not None:
            parts.append(f"{self.size[0]}x{self.size[1]}")
        if self.flexible is not None:
            parts.append(f"{self.flexible[0]}to{self.flexible[1]}")
        return "_".join(parts) + FORMATS[self.format].suffix


def variants_of(
    formats: Sequence[Format], sizes: Sequence[tuple[int, int]] = (), images: bool = False
) -> tuple[Variant, ...]:
    """Return all files of some formats, for inputs of any size or of each of some fixed sizes.

    With ``images`` there are Core ML packages that take and return images, too.
    """
    usual = [Variant(kind, precision) for kind in formats for precision in get_args(Precision)]
    if images:
        usual += [
            dataclasses.replace(one, ports="image") for one in usual if one.format == "coreml"
        ]
    if "tflite" in formats:
        usual.append(Variant("tflite", "int8", float_io=True))
    chosen = dict.fromkeys(sizes) if sizes else (None,)
    return tuple(dataclasses.replace(one, size=size) for size in chosen for one in usual)


DEFAULT_VARIANTS = variants_of(USUAL_FORMATS)
