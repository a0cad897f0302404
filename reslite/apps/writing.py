"""Writing a sample app beside a bundle: sources, the facts of its file, and the golden pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from export.graph import Graph
from export.rewrites.pooling import restores_tiles
from export.sources.source import Source
from export.variants import Variant
from reslite.apps.facts import facts_of, usual_window
from reslite.apps.golden import golden_of
from reslite.apps.languages import Language
from runtime.atomic import replacing
from runtime.errors import UserError
from runtime.formats import Format, Ports
from runtime.manifest import Artifact, Manifest
from training.data.pictures import Picture

APPS = "app"
"""Folder of the apps in the bundle's."""

_SEEN = 1.0  # dB; a loss that another precision is taken for
_PORTS: tuple[Ports, ...] = ("image", "float32")
_COREML_SIDES = (128, 256)  # squares among the sizes that a package of no fixed size takes


def check_apps(
    graph: Graph, languages: Sequence[Language], sizes: Sequence[tuple[int, int]] = ()
) -> None:
    """Check that samples can restore with a network, before its files are made.

    Args:
        graph: The network.
        languages: The languages of the samples.
        sizes: Fixed sizes of the bundle.

    Raises:
        UserError: If the network cannot be restored in tiles, or a file without a fixed size takes
            no tile that is wide enough.
    """
    if languages and not restores_tiles(graph):
        raise UserError(
            f"--app {languages[0].name}: no suitable file: this network averages over the whole "
            "picture in a way that no file is cut at, and the samples restore in tiles; leave "
            "--app out, and give the files whole pictures"
        )
    for language in languages:
        ((kind, _), *_) = language.opens
        if not sizes:
            _window(kind, graph)


def write_app(
    language: Language,
    source: Source,
    manifest: Manifest,
    folder: Path,
    picture: Picture,
    sizes: Sequence[tuple[int, int]] = (),
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write an app into ``folder/app/<language>``; returns that folder.

    Source files that somebody has changed there are kept unless ``overwrite`` is given; the facts
    and the golden pair are written anew. Everything is made before the first file is written.

    Args:
        language: The language.
        source: The network.
        manifest: The bundle, with losses and half arithmetic.
        folder: The bundle's folder.
        picture: A picture for the golden pair, H × W × 3.
        sizes: Fixed sizes in the bundle; the app's tiles have the first.
        overwrite: Whether to replace changed source files.
        announce: Receives a line for each file that is kept.

    Raises:
        UserError: If the bundle holds no file that the sample opens.
    """
    artifact = in_tiles(chosen(language, manifest, sizes), manifest)
    window = artifact.fixed_size or _window(artifact.format, source.graph)
    golden = golden_of(source, artifact, folder, window, picture)
    app = folder / APPS / language.name
    for name, content in language.sources().items():
        path = app / name
        if path.exists() and path.read_bytes() != content and not overwrite:
            announce(f"kept      {path} (changed; --overwrite replaces it)")
            continue
        _write(path, content)
    facts = facts_of(manifest, artifact, window) | {
        "file": f"../../{artifact.file}",
        "golden": {
            "height": golden.picture.shape[0],
            "width": golden.picture.shape[1],
            "tolerance": golden.tolerance,
        },
    }
    _write(app / "golden" / "input.rgb", golden.picture.tobytes())
    _write(app / "golden" / "expected.rgb", golden.expected.tobytes())
    with replacing(app / "golden" / "input.png") as temporary:
        Image.fromarray(golden.picture).save(temporary)
    _write(app / "app.json", (json.dumps(facts, indent=2) + "\n").encode())
    announce(f"app       {app} restores with {artifact.file}")
    return app


def chosen(
    language: Language, manifest: Manifest, sizes: Sequence[tuple[int, int]] = ()
) -> Artifact:
    """Return the file of a bundle that a sample opens: the first that does not lose visibly.

    Raises:
        UserError: If there is none.
    """
    size = sizes[0] if sizes else None
    losses = {
        (one.format, one.precision): one.measured.psnr_loss or 0.0
        for one in manifest.artifacts
        if one.fixed_size is None and not one.float_io
    }
    for kind, precision in language.opens:
        if losses.get((kind, precision), 0.0) > _SEEN:
            continue
        for ports in _PORTS if language.images else _PORTS[1:]:
            variant = Variant(kind, precision, size=size, ports=ports)
            artifact = manifest.artifact(variant.file_name(manifest.model, manifest.scale))
            if artifact is not None:
                return artifact
    wanted = " or ".join(f"{precision} {kind}" for kind, precision in language.opens)
    raise UserError(
        f"--app {language.name}: no suitable file: it opens {wanted}, and the bundle holds none "
        f"that loses at most {_SEEN:.0f} dB; choose another language"
    )


def in_tiles(artifact: Artifact, manifest: Manifest) -> Artifact:
    """Return the file that restores tiles for one: itself, or its companion cut at the pooling."""
    companion = manifest.artifact(artifact.tiled_by) if artifact.tiled_by else None
    return companion or artifact


def _window(kind: Format, graph: Graph) -> tuple[int, int]:
    """Return the tile of a file that takes any size: at least half of each side is kept.

    Raises:
        UserError: If a Core ML package takes no tile of this size.
    """
    side, _ = window = usual_window(graph.halo(), graph.sides)
    if kind == "coreml" and side not in _COREML_SIDES:
        raise UserError(
            f"--app swift: Core ML packages of no fixed size take no tiles of {side}x{side}, which "
            f"the halo of {graph.halo()} pixels asks for; add --size {side}x{side}"
        )
    return window


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
