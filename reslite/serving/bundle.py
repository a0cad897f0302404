"""A bundle as the page sees it: which files open in a browser, and what they need for it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.store import measurements_to_json
from reslite.apps.facts import facts_of, usual_window
from reslite.apps.languages import LANGUAGES
from reslite.serving.exporting import ICONS, WORKER, web_manifest
from reslite.serving.icons import icon
from reslite.serving.runtimes import RUNTIMES, WebRuntime
from reslite.serving.site import Item, Site
from runtime.errors import UserError
from runtime.manifest import HD, MANIFEST, Artifact, Manifest, read_manifest, verify

_PAGE = Path(__file__).with_name("page")


def open_bundle(folder: Path) -> Manifest:
    """Read the manifest of a bundle and check the files that the page opens.

    Raises:
        UserError: If there is none, a file is not the one it describes, or none opens in a browser.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder}: no {MANIFEST}; expected a folder that 'reslite ship' made")
    lacks = {one.file: lacking(manifest, one) for one in manifest.artifacts}
    opened = [one for one in manifest.artifacts if lacks[one.file] is None]
    if not opened:
        reasons = "; ".join(f"{name} {reason}" for name, reason in lacks.items())
        raise UserError(f"{folder}: no file opens in a browser: {reasons or 'it has no files'}")
    for artifact in opened:
        _checked(folder, artifact)
    return manifest


def runtime_of(artifact: Artifact) -> WebRuntime | None:
    """Return the runtime that opens files of this format in browsers."""
    return next((one for one in RUNTIMES if one.format == artifact.format), None)


def lacking(manifest: Manifest, artifact: Artifact) -> str | None:
    """Return why a file does not open in the page and what would, or None."""
    runtime = runtime_of(artifact)
    if runtime is None:
        return "is of a format that no browser opens"
    if manifest.halo is None:
        return "averages over the whole picture in a way that leaves no tiles"
    if artifact.tiled_by is not None:
        return f"averages over the whole picture; {artifact.tiled_by} restores tiles"
    if artifact.pooling is not None and artifact.format != "onnx":
        return "takes two passes over the tiles, which the page makes with ONNX files"
    ship = f"reslite ship {manifest.model} --scale {manifest.scale}"
    if artifact.input.dtype != "float32":
        return f"takes {artifact.input.dtype}; the file with float_io in its name takes floats"
    if runtime.fixed_size and artifact.fixed_size is None:
        return f"takes any size, and {runtime.package} one: {ship} --size 128x128 adds such files"
    if artifact.fixed_size and min(artifact.fixed_size) <= 2 * manifest.halo:
        return f"is all halo ({manifest.halo} pixels on each side): {ship} --size 128x128"
    return None


def bundle_json(manifest: Manifest, exported: bool) -> bytes:
    """Return what the page reads first: the network, its files and the runtimes.

    Args:
        manifest: The bundle.
        exported: Whether nobody is there to post results to.
    """
    facts = {
        "model": manifest.model,
        "scale": manifest.scale,
        "exported": exported,
        "schema": measurements_to_json([])["schema"],
        "runtimes": {
            one.name: {
                "title": one.title,
                "package": one.package,
                "folder": one.folder,
                "version": one.folder.rpartition("-")[2],
            }
            for one in RUNTIMES
        },
        "files": [_file(manifest, one) for one in manifest.artifacts],
    }
    return json.dumps(facts, ensure_ascii=False).encode()


def site_of(folder: Path, manifest: Manifest, exported: bool = False) -> Site:
    """Return the site of a bundle."""
    items = {path.name: Item(path, path.name) for path in sorted(_PAGE.iterdir()) if path.suffix}
    if not exported:  # a server that has ended must not look as if it lived
        del items[WORKER]
    restoring = LANGUAGES["js"].sources()["restore.mjs"]
    items["restore.mjs"] = Item(lambda: restoring, "restore.mjs")
    facts = bundle_json(manifest, exported)
    items["bundle.json"] = Item(lambda: facts, "bundle.json")
    for artifact in manifest.artifacts:
        if lacking(manifest, artifact) is None:
            read = partial(_checked, folder, artifact)
            items[f"files/{artifact.file}"] = Item(read, artifact.file)
            reference = partial(_reference, folder, manifest, artifact)
            items[f"golden/{artifact.file}.json"] = Item(reference, "golden.json")
    items["manifest.webmanifest"] = web_manifest(manifest.model, manifest.scale)
    for side in ICONS:
        items[f"icon-{side}.png"] = Item(partial(icon, side), "icon.png")
    opened = {name.rpartition(".")[2] for name in items if name.startswith("files/")}
    for runtime in RUNTIMES:
        if runtime.format in opened:
            items |= runtime.items()
    return items


def window_of(manifest: Manifest, artifact: Artifact) -> tuple[int, int]:
    """Return height and width of the tiles that the page restores with a file."""
    assert manifest.halo is not None
    return artifact.fixed_size or usual_window(manifest.halo, manifest.sides)


def _file(manifest: Manifest, artifact: Artifact) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file": artifact.file,
        "format": artifact.format,
        "precision": artifact.precision,
        "bytes": artifact.bytes,
        "loss": artifact.measured.psnr_loss,
    }
    lacks = lacking(manifest, artifact)
    if lacks is not None:
        return facts | {"lacks": lacks}
    runtime = runtime_of(artifact)
    assert runtime is not None
    height, width = window = window_of(manifest, artifact)
    facts |= facts_of(manifest, artifact, window)
    return facts | {
        "runtime": runtime.name,
        "any_size": artifact.fixed_size is None,
        "multadds": artifact.multadds * height * width * manifest.scale**2 // (HD[0] * HD[1]),
        "minimum": manifest.minimum,
    }


def _reference(folder: Path, manifest: Manifest, artifact: Artifact) -> bytes:
    # Imports torch, which only this needs.
    from reslite.serving.references import reference_json

    _checked(folder, artifact)
    return reference_json(folder, artifact, window_of(manifest, artifact))


def _checked(folder: Path, artifact: Artifact) -> bytes:
    """Return the bytes of a file that is still the one in the manifest.

    Raises:
        UserError: If it is missing or another.
    """
    path = folder / artifact.file
    try:
        verify(path, artifact)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); export it again") from error
