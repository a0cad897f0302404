"""Which architectures of others become files: every one is built, exported and run.

``make networks`` rewrites docs/networks.md. Networks are small and have random weights. A file for
TFLite or ONNX counts if it equals the network (int8: its simulation to the integer) on pictures of
several sizes; Core ML files are written, and run on macOS alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import click
import torch
from PIL import Image
from torch import nn

from export.bundle import bundle_of
from export.errors import UnsupportedOperators
from export.feasibility import obstacles
from export.sources.checkpoint import import_spandrel
from export.sources.finding import find_network
from export.sources.source import Source
from export.variants import Variant
from quantize.ptq import find_scales
from quantize.simulator import int8_reference
from runtime.atomic import replacing
from runtime.errors import UserError
from runtime.formats import USUAL_FORMATS, Format, Precision
from tools.before_and_after import astronaut

PAGE = Path(__file__).parent.parent / "docs" / "networks.md"

COLLECTION = 671
"""Models of the largest public collection of restoration networks, which ``Candidate.models``
counts."""


@dataclass(frozen=True)
class Candidate:
    """An architecture.

    Attributes:
        name: As people call it.
        build: Makes a small network with random weights, in an empty folder, and returns what names
            it on the command line.
        models: How many models of the public collection have it.
    """

    name: str
    build: Callable[[Path], str]
    models: int = 0


@dataclass(frozen=True)
class Row:
    """What became of an architecture.

    Attributes:
        candidate: The architecture.
        multiple: What the sides of pictures must be multiples of inside the runtime.
        files: The precisions in which files of each format were proven, or written.
        refused: Why there are none, or fewer than of others; empty if there is nothing to say.
    """

    candidate: Candidate
    multiple: int
    files: Mapping[Format, tuple[Precision, ...]]
    refused: str = ""

    @property
    def passes(self) -> bool:
        """Whether every format has a file."""
        return all(self.files.get(kind) for kind in USUAL_FORMATS)


def _spandrel(path: str, name: str, **arguments: Any) -> Callable[[Path], str]:
    """Return a function that saves a checkpoint of an architecture of spandrel."""

    def build(folder: Path) -> str:
        module = _of_spandrel(path, name, **arguments)
        return _saved(module, folder)

    return build


def _of_spandrel(path: str, name: str, **arguments: Any) -> Any:
    import_spandrel()
    torch.manual_seed(0)
    return getattr(import_module(f"spandrel.architectures.{path}"), name)(**arguments)


def _saved(module: nn.Module, folder: Path) -> str:
    checkpoint = folder / "network.pth"
    torch.save(_lively(module).state_dict(), checkpoint)
    return str(checkpoint)


def _span(folder: Path) -> str:
    """Save SPAN, which computes on levels from 0 to 255; random weights do not bring them back."""
    span = ("SPAN.__arch.span", "SPAN")
    module = _of_spandrel(*span, num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2)
    with torch.no_grad():
        module.conv_1.sk.weight /= 255
        module.conv_1.conv[2].weight /= 255
    return _saved(module, folder)


def _mobile(name: str) -> Callable[[Path], str]:
    """Return a function that names a network of ``tools/mobile.py``."""
    return lambda folder: f"{Path(__file__).with_name('mobile.py')}:{name}"


CANDIDATES: Sequence[Candidate] = (
    Candidate(
        "ESRGAN ×4",
        _spandrel("ESRGAN.__arch.RRDB", "RRDBNet", num_filters=8, num_blocks=1, scale=4),
        368,
    ),
    Candidate(
        "ESRGAN ×2, by pixel-unshuffle",
        _spandrel(
            "ESRGAN.__arch.RRDB",
            "RRDBNet",
            num_filters=8,
            num_blocks=1,
            scale=2,
            shuffle_factor=2,
        ),
    ),
    Candidate(
        "ESRGAN ×1, by pixel-unshuffle",
        _spandrel(
            "ESRGAN.__arch.RRDB",
            "RRDBNet",
            num_filters=8,
            num_blocks=1,
            scale=1,
            shuffle_factor=4,
        ),
    ),
    Candidate(
        "ESRGAN ×4, grey",
        _spandrel(
            "ESRGAN.__arch.RRDB", "RRDBNet", in_nc=1, out_nc=1, num_filters=8, num_blocks=1, scale=4
        ),
    ),
    Candidate(
        "Compact",
        _spandrel(
            "Compact.__arch.SRVGG",
            "SRVGGNetCompact",
            num_in_ch=3,
            num_out_ch=3,
            num_feat=16,
            num_conv=2,
            upscale=4,
        ),
        85,
    ),
    Candidate("SPAN", _span, 34),
    Candidate(
        "RealPLKSR",
        _spandrel("PLKSR.__arch.RealPLKSR", "RealPLKSR", dim=16, n_blocks=2, upscaling_factor=2),
        21,
    ),
    Candidate(
        "PLKSR",
        _spandrel("PLKSR.__arch.PLKSR", "PLKSR", dim=16, n_blocks=2, upscaling_factor=2),
    ),
    Candidate("Real-CUGAN ×2", _spandrel("RealCUGAN.__arch.upcunet_v3", "UpCunet2x"), 7),
    Candidate(
        "MoSR",
        _spandrel("MoSR.__arch.mosr_arch", "MoSR", n_block=1, dim=16, upscale=2),
        5,
    ),
    Candidate(
        "RCAN",
        _spandrel(
            "RCAN.__arch.rcan_arch", "RCAN", n_resgroups=1, n_resblocks=2, n_feats=16, scale=2
        ),
        4,
    ),
    Candidate(
        "DnCNN",
        _spandrel("DnCNN.__arch.network_dncnn", "DnCNN", in_nc=3, out_nc=3, nc=16, nb=4),
    ),
    Candidate(
        "DnCNN, grey",
        _spandrel("DnCNN.__arch.network_dncnn", "DnCNN", in_nc=1, out_nc=1, nc=16, nb=4),
    ),
    Candidate(
        "DRUNet",
        _spandrel("DRUNet.__arch.network_unet", "DRUNet", in_nc=4, out_nc=3, nc=[4, 8, 8, 8], nb=2),
    ),
    Candidate(
        "DRUNet, grey",
        _spandrel("DRUNet.__arch.network_unet", "DRUNet", in_nc=2, out_nc=1, nc=[4, 8, 8, 8], nb=2),
    ),
    Candidate(
        "NAFNet",
        _spandrel(
            "NAFNet.__arch.NAFNet_arch",
            "NAFNet",
            width=8,
            middle_blk_num=1,
            enc_blk_nums=[1, 1],
            dec_blk_nums=[1, 1],
        ),
    ),
    Candidate(
        "SwiftSRGAN",
        _spandrel(
            "SwiftSRGAN.__arch.SwiftSRGAN",
            "Generator",
            num_channels=8,
            num_blocks=1,
            upscale_factor=2,
        ),
    ),
    Candidate("QuickSRNet", _mobile("QuickSRNet")),
    Candidate("XLSR", _mobile("XLSR")),
    Candidate("SESR", _mobile("SESR")),
    Candidate("ABPN", _mobile("ABPN")),
    Candidate(
        "SAFMN",
        _spandrel("SAFMN.__arch.safmn", "SAFMN", dim=16, n_blocks=1, upscaling_factor=2),
    ),
    Candidate(
        "DAT",
        _spandrel("DAT.__arch.DAT", "DAT", embed_dim=16, depth=[1], num_heads=[2], upscale=2),
        34,
    ),
    Candidate(
        "SwinIR",
        _spandrel(
            "SwinIR.__arch.SwinIR",
            "SwinIR",
            embed_dim=16,
            depths=[1],
            num_heads=[2],
            window_size=8,
            upscale=2,
            upsampler="pixelshuffle",
        ),
        22,
    ),
    Candidate(
        "OmniSR",
        _spandrel("OmniSR.__arch.OmniSR", "OmniSR", num_feat=16, up_scale=2),
        20,
    ),
    Candidate(
        "HAT",
        _spandrel(
            "HAT.__arch.HAT",
            "HAT",
            embed_dim=16,
            squeeze_factor=8,
            depths=[1],
            num_heads=[2],
            window_size=8,
            upscale=2,
            upsampler="pixelshuffle",
        ),
        7,
    ),
)


def row_of(candidate: Candidate, folder: Path) -> Row:
    """Build a network, export it in every format and precision, and run what can run here.

    Args:
        candidate: The architecture.
        folder: An empty folder for its files.
    """
    name = candidate.build(folder)
    try:
        source = Source.of(network := find_network(name), network.chosen_scale(None))
    except UnsupportedOperators as error:
        names = dict.fromkeys(operator for _, operator in error.operators)
        return Row(candidate, 0, {}, f"outside the vocabulary: {', '.join(names)}")
    except UserError as error:
        return Row(candidate, 0, {}, str(error).removeprefix(f"{name}: "))
    hindered = obstacles(source.graph)
    variants = [Variant(*kind) for kind, reason in hindered.items() if not reason]
    table = None
    if any(variant.precision == "int8" for variant in variants):
        Image.fromarray(astronaut()[:96, 100:196]).save(folder / "astronaut.png")
        table = find_scales(source, folder)
    bundle_of(source, variants, folder / "out", table, int8_reference)
    files = {
        kind: tuple(one for one in get_args(Precision) if not hindered[kind, one])
        for kind in USUAL_FORMATS
    }
    reasons = dict.fromkeys(reason for reason in hindered.values() if reason)
    return Row(candidate, source.graph.multiple, files, "; ".join(reasons))


_NEVER_READ = re.compile(r"(residual\.\d+\.block2|convblock)\.act\.weight")


def _lively(module: nn.Module) -> nn.Module:
    """Give constants of the initialization, as slopes and scales of norms, random values, too.

    Those of Swift-SRGAN's second activations stay, which its training cannot change either.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            same = parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
            if same and not _NEVER_READ.fullmatch(name):
                parameter.add_(0.1 * torch.rand_like(parameter))
    return module.eval()


def page_of(rows: Iterable[Row]) -> str:
    """Return docs/networks.md."""
    rows = list(rows)
    passing = sum(row.candidate.models for row in rows if row.passes)
    return PAGE_TEXT.format(
        passing=passing,
        collection=COLLECTION,
        share=100 * passing / COLLECTION,
        table="\n".join(line_of(row) for row in rows if row.files),
        refused="\n".join(line_of(row) for row in rows if not row.files),
    )


def line_of(row: Row) -> str:
    """Return the line of an architecture in one of the page's two tables."""
    one = row.candidate
    models = str(one.models or "")
    if not row.files:
        return f"| {one.name} | {models} | {row.refused} |"
    sides = "any" if row.multiple == 1 else f"multiples of {row.multiple}"
    cells = [_precisions(row.files[kind]) for kind in ("tflite", "onnx", "coreml")]
    return f"| {' | '.join((one.name, models, sides, *cells, row.refused))} |"


def _precisions(made: Sequence[Precision]) -> str:
    return ", ".join(made) or "none"


PAGE_TEXT = """# Networks that become files

Made by `make networks`, and made again and compared by `make test`, with networks of each
architecture that are small and have random weights. TFLite and ONNX files are compared with the
network on pictures of several odd sizes, int8 files with their simulation to the integer; Core ML
files are written, and need macOS to run. *Models* counts those of a public collection of
{collection} networks for restoration: {passing} of them, {share:.0f} %, are of architectures that
get every format.
[own-network.md](own-network.md) says how, and what int8 costs.

| architecture | models | sides of pictures | TFLite | ONNX | Core ML | what is missing |
| --- | ---: | --- | --- | --- | --- | --- |
{table}

Pictures of other sides are continued by reflection, and the result is cut.

Refused, with the reason that `reslite inspect` gives:

| architecture | models | why |
| --- | ---: | --- |
{refused}
"""


@click.command()
@click.argument("names", nargs=-1)
def write(names: tuple[str, ...]) -> None:
    """Build, export and run all architectures, and rewrite docs/networks.md.

    With NAMES only the lines of these architectures are made, and printed.
    """
    rows = []
    for candidate in (one for one in CANDIDATES if not names or one.name in names):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(candidate, Path(folder)))
        click.echo(line_of(rows[-1]))
    if names:
        return
    with replacing(PAGE) as temporary:
        temporary.write_text(page_of(rows), encoding="utf-8")


if __name__ == "__main__":
    write()
