"""What pages measure: checked against the bundle, then kept in the store."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.measurement import Measurement, utc_now
from benchmarks.store import Store, measurements_from_json
from reslite.serving.bundle import lacking
from runtime.errors import UserError
from runtime.manifest import Manifest

_DEVICES = re.compile(r"browser-(wasm-[1-9]\d?|webgpu)")
_EVIDENCE = ("measured", "executed")


class Nonsense(UserError):
    """A page sent what no page of ours sends."""


def keeping(
    manifest: Manifest, store: Path, announce: Callable[[str], None]
) -> Callable[[bytes], int]:
    """Return what takes the body of a page's post and returns how many measurements were new.

    It raises ``Nonsense`` for a body that is not believed, and another ``UserError`` if the store
    cannot be written; nothing of the post is stored then.

    Args:
        manifest: The bundle that is served.
        store: File of the store.
        announce: Receives a line for each measurement.
    """

    def keep(body: bytes) -> int:
        found = measurements_in(body, manifest)
        with Store(store) as opened:
            new = opened.add(found)
        for one in found if new else ():
            announce(_line(one))
        return new

    return keep


def measurements_in(body: bytes, manifest: Manifest) -> list[Measurement]:
    """Read the measurements that a page sent; their time becomes that of this machine.

    Raises:
        Nonsense: If they are damaged, or not of this bundle's files in a browser.
    """
    try:
        found = measurements_from_json(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise Nonsense(f"no measurements: {error}") from error
    return [dataclasses.replace(_believed(one, manifest), when=utc_now()) for one in found]


def _believed(one: Measurement, manifest: Manifest) -> Measurement:
    artifact = manifest.artifact(one.file)
    if artifact is None or lacking(manifest, artifact) is not None:
        raise Nonsense(f"{one.file[:80]}: no file that this page opens")
    expected = {
        "sha256": artifact.sha256,
        "format": artifact.format,
        "precision": artifact.precision,
        "network": manifest.model,
        "scale": manifest.scale,
        "unit": "ms",
    }
    for name, value in expected.items():
        if getattr(one, name) != value:
            raise Nonsense(f"{name} is {getattr(one, name)!r}, expected {value!r}")
    for text in (one.machine, one.runtime, *map(str, one.facts.values())):
        if not text.isprintable():  # a terminal would obey it
            raise Nonsense(f"{text[:80]!r}: not a line of text")
    if not _DEVICES.fullmatch(one.device):
        raise Nonsense(f"device is {one.device[:80]!r}, expected a browser's")
    if one.evidence not in _EVIDENCE:
        raise Nonsense(f"evidence is {one.evidence!r}, expected {' or '.join(_EVIDENCE)}")
    if (one.evidence == "measured") != bool(one.samples):
        raise Nonsense(f"{one.evidence} with {len(one.samples)} samples")
    if one.evidence == "measured" and one.facts.get("software adapter") != "no":
        raise Nonsense("an adapter in software gives no time")
    return one


def _line(one: Measurement) -> str:
    if not one.samples:
        return f"{one.evidence}  {one.file} on {one.runtime}: {one.facts.get('check', 'unchecked')}"
    return (
        f"{one.evidence}  {one.file} on {one.runtime}: median {median(one.samples):.1f} ms of "
        f"{len(one.samples)}"
    )
