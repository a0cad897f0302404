"""``reslite gate``: bundles measured and held against their baselines.

Composes the other packages: export, the table of scales, pictures and measuring, comparing.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gate import Deviation, Verdict, compare, damaged, unproven
from benchmarks.pairs import Pairs, pairs_in
from benchmarks.snapshots import (
    NETWORK,
    UPDATE_COMMAND,
    Reference,
    Snapshot,
    baseline_path,
    float32_reference,
    gate_pictures,
    manifest_of,
    read_snapshot,
    snapshot,
)
from export.bundle import bundle_of
from export.parity import ParityError, restore_with
from export.sources.finding import NOTHING_SAID, find_network
from export.sources.options import Options
from export.sources.python_file import is_python
from export.sources.source import Source, Trained
from export.variants import DEFAULT_VARIANTS
from quantize import load_scales
from quantize.simulator import int8_reference
from runtime.errors import UserError
from runtime.manifest import Manifest
from training.catalogue import find_model, list_models
from training.tasks import task_of_manifest


def judge_shipped(model: str, scale: int, update: bool = False) -> Verdict:
    """Export a network that ships with reslite and judge its files by the baseline of reslite.

    Args:
        model: Name of the network.
        scale: Upscaling factor.
        update: Whether to accept what is found as the new baseline.

    Raises:
        UserError: If there is no baseline, or it was measured on something else.
    """
    source, table = Source.of(find_model(model), scale), load_scales(model, scale)
    pairs = gate_pictures(source.model.task, scale)
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variant in DEFAULT_VARIANTS:
            try:
                bundle_of(source, [variant], folder, table, int8_reference)
            except ParityError as error:
                failed.append(unproven(error))
        restore = restore_with(source.module, source.graph.sides)
        found = snapshot(folder, Reference(NETWORK, restore), pairs)
    accept = f"{UPDATE_COMMAND} --model {model} --scale {scale}"
    return _judged(found, failed, baseline_path(model, scale), accept, update)


def judge_bundle(
    folder: Path,
    baseline: Path | None = None,
    data: Path | None = None,
    network: str | None = None,
    options: Options = NOTHING_SAID,
    update: bool = False,
) -> Verdict:
    """Judge a bundle as it is.

    Args:
        folder: The bundle.
        baseline: File of the baseline; None for the one that ships with reslite.
        data: Folder of pictures, degraded as ``reslite evaluate`` does it; None for the crops of
            scikit-image's pictures.
        network: The file of weights or the Python network that the bundle was made from, to compare
            its files with; None compares with the network that ships with reslite if the bundle was
            made from its weights or ``baseline`` is None, else with a float32 file of the bundle.
        options: What else was said of the network.
        update: Whether to write what is found as the new baseline.

    Raises:
        UserError: If there is no bundle, baseline or picture, the weights are not those of the
            bundle, or the baseline was measured on something else.
    """
    manifest = manifest_of(folder)
    task = task_of_manifest(manifest, manifest.scale)
    if baseline is None and manifest.model not in {one.name for one in list_models()}:
        raise UserError(
            f"{folder}: holds {manifest.model} ×{manifest.scale}, which reslite has no baseline "
            "for; name a file of your own with --baseline, and make it with --update"
        )
    pairs: Pairs = gate_pictures(task, manifest.scale)
    if data is not None:
        pairs = pairs_in(data, task, manifest.scale)
    if baseline is None:
        model: Trained | None = find_network(manifest.model)
    else:
        model = _model_of(folder, manifest, network, options)
    with _reference(folder, manifest, model) as reference:
        found = snapshot(folder, reference, pairs)
    path = baseline or baseline_path(manifest.model, manifest.scale)
    python = network is not None and is_python(network)
    named: dict[str, Path | str | None] = {
        "--bundle": folder,
        "--baseline": baseline,
        "--data": data,
    }
    named["--network" if python else "--weights"] = network
    words = [word for option, value in named.items() if value for word in (option, f"{value}")]
    words += options.words
    return _judged(found, damaged(folder), path, f"{UPDATE_COMMAND} {shlex.join(words)}", update)


def _judged(
    found: Snapshot, failed: list[Deviation], path: Path, accept: str, update: bool
) -> Verdict:
    """Compare with the baseline, or write it, unless files failed a check of their own."""
    if update and not failed:
        found.write(path)
        return Verdict(found, (), accept, updated=path)
    compared = [] if update else compare(found, read_snapshot(path))
    return Verdict(found, (*failed, *compared), None if failed else accept)


def _model_of(
    folder: Path, manifest: Manifest, network: str | None, options: Options
) -> Trained | None:
    """Return the network that a bundle was made from; None if its weights are not at hand.

    Raises:
        UserError: If ``network`` is another than that of the bundle.
    """
    if network is None:
        same = (one for one in list_models() if one.sha256 == manifest.weights_sha256)
        return next(same, None)
    model = find_network(network, options)
    if model.sha256 != manifest.weights_sha256:
        raise UserError(
            f"{network}: SHA-256 {model.sha256[:12]}…, but {folder} was made from weights of "
            f"{manifest.weights_sha256[:12]}…; name those, or make the bundle anew"
        )
    return model


@contextmanager
def _reference(folder: Path, manifest: Manifest, model: Trained | None) -> Iterator[Reference]:
    """Open what the files of a bundle are compared with: its network, else a float32 file."""
    if model is not None:
        yield Reference(NETWORK, restore_with(model.at_scale(manifest.scale), manifest.sides))
        return
    with float32_reference(folder, manifest) as reference:
        yield reference
