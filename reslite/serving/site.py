"""A site: every path that the page may ask for, and what stands there.

The server and the export take the same table. What is not in it does not exist, so that no request
reaches another file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class Item:
    """What stands at one path of a site.

    Attributes:
        content: A file, or what makes the bytes each time they are asked for.
        name: The path or its last part, whose suffix says the kind.
    """

    content: Path | Callable[[], bytes]
    name: str

    @property
    def kind(self) -> str:
        """The media type."""
        return _KINDS.get(PurePosixPath(self.name).suffix, "application/octet-stream")

    def read(self) -> bytes:
        """Return the bytes."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()


Site = Mapping[str, Item]
"""By path, without a slash in front."""
