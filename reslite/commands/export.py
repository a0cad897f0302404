"""``reslite export``: ONNX, TFLite, Core ML and Core AI files of a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast, get_args

import click

from reslite.commands.network import NamedNetwork, takes_network
from runtime.formats import USUAL_FORMATS, Format, Ports, Precision


def parse_size(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Read a height and a width such as 180x320 (a click callback)."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", value)
    if found is None:
        raise click.BadParameter(f"{value}: expected height x width, for example 180x320")
    return int(found[1]), int(found[2])


def parse_sizes(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    """Read several such sizes, each once (a click callback)."""
    sizes = (parse_size(ctx, param, one) for one in dict.fromkeys(value))
    return tuple(size for size in sizes if size is not None)


def parse_range(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Read a smallest and a largest side such as 16-1024 (a click callback)."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)-([1-9]\d*)", value)
    if found is None or int(found[1]) >= int(found[2]):
        raise click.BadParameter(f"{value}: expected least-greatest, for example 16-1024")
    return int(found[1]), int(found[2])


@click.command(
    "export", epilog="Example: reslite export carn-m --scale 4 --format tflite --precision int8"
)
@takes_network
@click.option(
    "--format",
    "formats",
    type=click.Choice(get_args(Format)),
    multiple=True,
    help=f"May be repeated [default: the profile's, else {', '.join(USUAL_FORMATS)}].",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(get_args(Precision)),
    multiple=True,
    default=get_args(Precision),
    show_default="all",
)
@click.option(
    "--size",
    callback=parse_size,
    help="Fix the input to this height x width in pixels, for example 180x320.",
)
@click.option(
    "--flexible",
    callback=parse_range,
    help="Core ML: any side in this range, for example 16-1024 [default: enumerated sizes].",
)
@click.option("--float-io", is_flag=True, help="int8 TFLite: float32 input and output.")
@click.option("--image-io", is_flag=True, help="Core ML: images of 8 bits in and out, for Vision.")
@click.option(
    "--float16-io",
    is_flag=True,
    help="Core ML in float16 and int8: float16 arrays in and out (iOS 16).",
)
@click.option("--profile", help="Target profile [default: the format's own].")
@click.option(
    "--scales", type=click.Path(path_type=Path), help="Table of scales from reslite quantize."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="dist",
    show_default=True,
    help="Folder of the bundle.",
)
@click.option("--overwrite", is_flag=True, help="Export again even valid files.")
def command(
    network: NamedNetwork,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    size: tuple[int, int] | None,
    flexible: tuple[int, int] | None,
    float_io: bool,
    image_io: bool,
    float16_io: bool,
    profile: str | None,
    scales: Path | None,
    out: Path,
    overwrite: bool,
) -> None:
    """Export MODEL, a network as in 'reslite ship', and prove each file.

    Every file is run and compared with its source network, and described in manifest.json. Core ML
    packages are written everywhere and run on macOS only. Core AI (beta) needs the extra 'coreai'.
    """
    from export.bundle import bundle_of
    from export.profiles import profile_named
    from export.scales import read_scale_table
    from export.sources.source import Source
    from export.variants import Variant
    from quantize import load_scales
    from quantize.calibration import few_photographs
    from quantize.simulator import int8_reference

    of_profile = () if profile is None else (profile_named(profile).format,)
    if of_profile and formats and set(formats) != set(of_profile):
        raise click.UsageError(f"profile {profile} is for {of_profile[0]}; leave --format out")
    formats = formats or of_profile or USUAL_FORMATS
    _check_combination(formats, precisions, size, flexible, float_io)
    ports = _ports_of(formats, precisions, image_io, float16_io)
    if flexible is not None:
        click.echo(
            "warning   --flexible: Core ML prepares the Neural Engine for sizes that it knows, and "
            "runs a range of sizes on the GPU or the CPU; --size, or neither, keeps it",
            err=True,
        )
    found, scale = network.find()
    source = Source.of(found, scale)
    table = None
    if "int8" in precisions:
        table = read_scale_table(scales) if scales else load_scales(found.name, scale)
    elif scales:
        click.echo(f"{scales}: not used, because no int8 file is asked for", err=True)
    variants = [
        Variant(
            cast("Format", kind),
            cast("Precision", precision),
            float_io and kind == "tflite" and precision == "int8",
            size,
            profile,
            flexible if kind == "coreml" else None,
            ports=ports if kind == "coreml" else "float32",
        )
        for kind in formats
        for precision in precisions
    ]
    manifest = bundle_of(
        source,
        variants,
        out,
        table,
        int8_reference,
        overwrite,
        click.echo,
        partial(few_photographs, found.task, scale),
    )
    for artifact in manifest.artifacts:
        difference = artifact.measured.max_abs_diff
        proof = "not run here" if difference is None else f"max. difference {difference:.1e}"
        click.echo(f"{artifact.file:<40} {artifact.bytes / 1e3:>8.0f} kB  {proof}")


def _check_combination(
    formats: Sequence[str],
    precisions: Sequence[str],
    size: tuple[int, int] | None,
    flexible: tuple[int, int] | None,
    float_io: bool,
) -> None:
    """Refuse options that apply to none of the files."""
    if float_io and not ("tflite" in formats and "int8" in precisions):
        raise click.UsageError("--float-io is for int8 TFLite files; none is asked for")
    if flexible is not None and "coreml" not in formats:
        raise click.UsageError("--flexible is for Core ML packages; none is asked for")
    if flexible is not None and size is not None:
        raise click.UsageError("--size fixes the input and --flexible frees it; choose one")


def _ports_of(
    formats: Sequence[str], precisions: Sequence[str], image_io: bool, float16_io: bool
) -> Ports:
    """Return what Core ML packages take and return; refuse options that do not apply."""
    if image_io and float16_io:
        raise click.UsageError("--image-io and --float16-io: a package takes one of them; choose")
    if (image_io or float16_io) and "coreml" not in formats:
        option = "--image-io" if image_io else "--float16-io"
        raise click.UsageError(f"{option} is for Core ML packages; none is asked for")
    if float16_io and "float32" in precisions:
        raise click.UsageError(
            "--float16-io is for packages that compute in float16; ask for --precision float16 or "
            "int8 alone"
        )
    return "image" if image_io else "float16" if float16_io else "float32"
