"""Make sure that ``runtime``, ``training`` and the others are reslite's own.

The packages bear everyday names. A folder of the same name in the working directory, or another
distribution's package, would be imported in their place and fail in ways nobody understands.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("runtime", "training", "export", "quantize", "benchmarks")


class ShadowedPackage(ImportError):
    """Another package is found under the name of one of reslite's own."""


def check_packages() -> None:
    """Compare where each package would be imported from with where reslite is.

    Raises:
        ShadowedPackage: Naming the folder that is in the way.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        locations = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        folder = Path(locations[0]).resolve() if locations else None
        if folder != home / name:
            raise ShadowedPackage(
                f"reslite needs its own package '{name}' ({home / name}), but Python finds "
                f"{folder or 'none'}; run from another folder, or rename or uninstall that one"
            )
