"""Apple's Core AI library, which is beta: the one version that files are written and run with."""

from __future__ import annotations

from importlib import metadata

from runtime.errors import UserError

KNOWN_VERSION = "1.0.0b3"
"""The version of coreai-core that this release was tested with."""

_PACKAGE = "coreai-core"


def check_library() -> None:
    """Check that the library is installed in the version that is known.

    Raises:
        UserError: If it is missing or of another version; says what to install.
    """
    try:
        found = metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"Core AI (beta) needs Apple's library {_PACKAGE}, for Linux on x86-64 and macOS: "
            "pip install 'reslite[coreai]'"
        ) from error
    if found != KNOWN_VERSION:
        raise UserError(
            f"{_PACKAGE} {found} is installed; Core AI is beta and changes, and only files of "
            f"{_PACKAGE} {KNOWN_VERSION} were tested: pip install {_PACKAGE}=={KNOWN_VERSION}"
        )
