"""What runtimes of others make of our files: exports bundles, proves them, and writes the table.

``make proof`` rewrites docs/runtimes.md. It makes CARN-M ×4 and mepsnet-s, and a Compact with
random weights for the networks of others. Bundles, environments and results are kept in the user's
cache folder, so that a second run executes only what changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
from PIL import Image

from benchmarks.devices.catalogue import proving
from benchmarks.proof import LEAST_DECIBELS, SIZE, Row, failures, prove
from benchmarks.report import proof_table
from export.bundle import bundle_of
from export.feasibility import obstacles
from export.profiles import PROFILES
from export.scales import ScaleTable
from export.sources.finding import find_network
from export.sources.source import Source
from export.variants import Variant
from quantize import load_scales
from quantize.ptq import find_scales
from quantize.simulator import int8_reference
from reslite.commands.prove import chosen_devices, prepare_environments
from runtime.atomic import replacing
from runtime.cache import cache_folder
from runtime.formats import Precision
from tools.before_and_after import astronaut
from tools.networks_table import CANDIDATES

PAGE = Path(__file__).parent.parent / "docs" / "runtimes.md"

OURS = (("carn-m", 4), ("mepsnet-s", 1))
FOREIGN = "Compact"
"""A candidate of ``tools.networks_table``."""

PAGE_TEXT = """# Our files on runtimes of others

Made by `make proof` ([prove.md](prove.md) says how, and how to prove files of yours). A file is
compared with what LiteRT (TFLite) or ONNX Runtime (ONNX) makes of it on this CPU, which every
export compares with the network, on pictures of {height}×{width}: a gradient with noise, and
saturated colours. Files of any size take one of another size besides. A cell holds the PSNR of the
worst picture and the largest difference in levels of 1/255, or *identical*. Integer files are
*identical* where a runtime rounds as XNNPACK does; others round sums in other places, and an error
of one quantum in an early layer grows on the way. Below {float32:g} dB (float) and {int8:g} dB
(int8) a result counts as wrong and stands in bold. `network` is a small Compact with random
weights, made by the tool.

"""


@click.command()
@click.option("--on", metavar="NAMES", help="Devices, separated by commas [default: all].")
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="The page to write.")
def main(on: str | None, page: Path) -> None:
    """Prove our files on all devices and rewrite docs/runtimes.md; exit 1 if something fails."""
    devices = chosen_devices(on)
    prepare_environments(devices)
    rows: list[Row] = []
    for bundle in bundles():
        told = lambda row: click.echo(proof_table.as_line(row))  # noqa: E731
        rows += prove(bundle, devices, told=told)
    with replacing(page) as temporary:
        temporary.write_text(page_of(rows), encoding="utf-8")
    failed = failures(rows)
    if failed:
        click.echo("\n".join(["", "not proven:", *failed]), err=True)
    sys.exit(1 if failed else 0)


def page_of(rows: Sequence[Row]) -> str:
    """Return the page of results."""
    height, width = SIZE
    text = PAGE_TEXT.format(
        height=height, width=width, float32=LEAST_DECIBELS["float32"], int8=LEAST_DECIBELS["int8"]
    )
    return text + proof_table.as_markdown(rows)


def bundles() -> list[Path]:
    """Export the bundles, or complete those of an earlier run, and return their folders."""
    made = []
    for name, scale in OURS:
        source = Source.of(find_network(name), scale)
        made.append(_bundle(source, load_scales(name, scale), any_size=name == OURS[0][0]))
    folder = _folder("networks")
    (candidate,) = (one for one in CANDIDATES if one.name == FOREIGN)
    network = find_network(candidate.build(folder))
    source = Source.of(network, network.chosen_scale(None))
    Image.fromarray(astronaut()[:96, 100:196]).save(folder / "astronaut.png")
    made.append(_bundle(source, find_scales(source, folder), any_size=False))
    return made


def _bundle(source: Source, table: ScaleTable, any_size: bool) -> Path:
    """Export a network in every format that a device takes, at a fixed size and at any."""
    formats = {kind for device in proving() for kind in device.takes.formats}
    hindered = obstacles(source.graph)
    variants = [
        Variant(kind, precision, size=size)
        for size in ((SIZE, None) if any_size else (SIZE,))
        for kind in sorted(formats)
        for precision in get_args(Precision)
        if not hindered[kind, precision]
    ]
    # Files for devices that fail on those of the default profile, integers among them alone.
    profiles = {device.profile for device in proving() if device.profile is not None}
    if any_size:
        for one in sorted(profiles):
            variants.append(Variant(PROFILES[one].format, "int8", size=SIZE, profile=one))
    folder = _folder(f"bundles/{source.model.name}_x{source.scale}")
    bundle_of(source, variants, folder, table, int8_reference, announce=click.echo)
    return folder


def _folder(name: str) -> Path:
    folder = cache_folder() / "proof" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
