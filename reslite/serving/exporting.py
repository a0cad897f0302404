"""The page as a folder of files, which any static server gives: offline after the first load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from reslite.serving.site import Item, Site
from runtime.atomic import replacing
from runtime.errors import UserError

WORKER = "service-worker.js"
_MARKS = ("index.html", "bundle.json", WORKER)


def export_site(site: Site, folder: Path, overwrite: bool = False) -> int:
    """Write a site into a folder; returns its bytes.

    Args:
        site: The site of a bundle, made for export.
        folder: The folder, new or empty unless an earlier site is there and ``overwrite`` given.
        overwrite: Whether an earlier site may be replaced.

    Raises:
        UserError: If there is something else, or the folder cannot be written. Nothing unfinished
            is left.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not all((folder / name).is_file() for name in _MARKS):
            raise UserError(f"{folder}: holds something else than a page; choose another folder")
        if not overwrite:
            raise UserError(f"{folder}: already exists; pass --overwrite to replace")
    total = 0
    with replacing(folder) as temporary:
        digest = hashlib.sha256()
        for path, item in sorted(site.items()):
            if path == WORKER:
                continue
            content = item.read()
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
            _write(temporary / path, content)
            total += len(content)
        # Written last: the worker keeps what is named here, until the digest is another.
        head = f"const VERSION = {json.dumps(digest.hexdigest()[:16])};\n"
        head += f"const FILES = {json.dumps(sorted(set(site) - {WORKER}))};\n"
        _write(temporary / WORKER, head.encode() + site[WORKER].read())
    return total


def web_manifest(model: str, scale: int) -> Item:
    """Return what lets a phone install the page."""
    content = {
        "name": f"{model} ×{scale} · reslite",
        "short_name": model,
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#fbfbfa",
        "theme_color": "#0b6e5f",
        "icons": [
            {
                "src": f"icon-{side}.png",
                "sizes": f"{side}x{side}",
                "type": "image/png",
                "purpose": purpose,
            }
            for side in ICONS
            for purpose in ("any", "maskable")
        ],
    }
    text = json.dumps(content, ensure_ascii=False).encode()
    return Item(lambda: text, "manifest.webmanifest")


ICONS = (192, 512)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
