"""A check that the imported packages ``runtime``, ``training`` and so on are reslite's.

The packages have common names: a folder of the same name in the working directory, or another
distribution's package, would be imported instead and fail with misleading errors.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("runtime", "training", "export", "quantize", "benchmarks")


class ShadowedPackage(ImportError):
    """Another package has the name of one of reslite's packages and hides it."""


def check_packages() -> None:
    """Check that each package would be imported from reslite's own folder.

    Raises:
        ShadowedPackage: If not; names the folder of the other package.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        locations = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        folder = Path(locations[0]).resolve() if locations else None
        if folder != home / name:
            raise ShadowedPackage(
                f"reslite needs its own package '{name}' ({home / name}), but Python finds "
                f"{folder or 'none'}; run from another folder, or rename or uninstall that package"
            )
