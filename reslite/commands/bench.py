"""``reslite bench``: what files cost on devices, and the store of what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reslite.commands.export import parse_size

if TYPE_CHECKING:
    from benchmarks.devices.device import Device
    from benchmarks.measurement import Measurement
    from benchmarks.store import Store

_PATH = click.Path(path_type=Path)
_RUN = "run"
_LATEST = "latest"
_LAYERS_SIZE = (180, 320)


class _Bench(click.Group):
    """A group of verbs whose own is to measure: ``reslite bench FILES``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


class _Run(click.Command):
    """Measuring, whose help names the other verbs, too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Verbs for what was measured"):
            formatter.write_dl(
                [
                    (f"bench {name}", one.get_short_help_str(80))
                    for name, one in command.commands.items()
                    if name != _RUN
                ]
            )

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        assert ctx.parent is not None
        formatter.write_usage(ctx.parent.command_path, " ".join(self.collect_usage_pieces(ctx)))


def _stored(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        "path",
        type=_PATH,
        help="The store [default: RESLITE_STORE, or results.sqlite in the user's data folder].",
    )(function)


def parse_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a time such as 60s or 5m (a click callback)."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|)", value)
    if found is None or float(found[1]) <= 0:
        raise click.BadParameter(f"{value}: expected a time, for example 60s or 5m")
    return float(found[1]) * (60 if found[2].startswith("m") else 1)


@click.group("bench", cls=_Bench)
def command() -> None:
    """Measure files on devices."""


@command.command(
    _RUN,
    cls=_Run,
    epilog="Example: reslite bench dist/*.tflite --reference dist/carn_m_x4_float32.tflite",
)
@click.argument("files", nargs=-1, type=_PATH)
@click.option(
    "--device",
    "devices",
    metavar="NAMES",
    multiple=True,
    help="Devices, separated by commas; see bench devices [default: cpu].",
)
@click.option("--reference", type=_PATH, help="Compare with this file [default: the first].")
@click.option(
    "--size", callback=parse_size, help="Input height x width [default: of a 720p output]."
)
@click.option(
    "--starts", type=click.IntRange(min=1), help="Process starts of each pair [default: 7]."
)
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Timed inferences in each start [default: 5]."
)
@click.option(
    "--budget", callback=parse_seconds, help="Choose starts and rounds to last so long, as 60s."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: all].")
@_stored
@click.option("--no-store", is_flag=True, help="Keep nothing of this run.")
@click.option(
    "--layers",
    is_flag=True,
    help="Print where the time goes, layer by layer [one thread, 180x320].",
)
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def run(
    files: tuple[Path, ...],
    devices: tuple[str, ...],
    reference: Path | None,
    size: tuple[int, int] | None,
    starts: int | None,
    rounds: int | None,
    budget: float | None,
    threads: int | None,
    path: Path | None,
    no_store: bool,
    layers: bool,
    as_json: bool,
) -> None:
    """Measure FILES on devices; every sample is kept.

    Each file runs against the reference in several process starts, and the reference against
    itself. Compare ratios and their intervals. Nothing else should run on the machine meanwhile.
    """
    from benchmarks.bench import count_or_estimate, measure_times
    from benchmarks.blocks import Recorder
    from benchmarks.comparison import ROUNDS, STARTS, Plan
    from benchmarks.devices.device import TimedDevice
    from benchmarks.report.bench_tables import run_json, run_text
    from runtime.errors import UserError

    if budget is not None and (starts or rounds):
        raise UserError("--budget chooses starts and rounds; leave --starts and --rounds out")
    if not files:
        raise UserError("no files to measure; name exported .tflite or .onnx files")
    chosen = chosen_devices(devices)
    if layers:
        _print_layers(files, chosen, size, threads, as_json)
        return
    timing = [one for one in chosen if isinstance(one, TimedDevice)]
    asked = [one for one in chosen if one not in timing]
    if not timing and (size or starts or rounds or budget or threads):
        names = ", ".join(one.name for one in asked)
        raise UserError(
            f"{names}: not timed; leave --size, --starts, --rounds, --budget and --threads out"
        )
    whole = _whole(dict.fromkeys((*files, *([reference] if reference else []))))
    recorder = Recorder(None if no_store else _writable(path), _warn)
    not_run = []
    try:
        if timing:
            not_run += measure_times(
                whole,
                timing,
                recorder,
                reference=reference,
                plan=Plan(starts or STARTS, rounds or ROUNDS),
                budget=budget,
                threads=threads,
                size=size,
                progress=True,
            )
        not_run += count_or_estimate(whole, asked, recorder, reference=reference)
    except (UserError, KeyboardInterrupt):
        if any(one.samples for one in recorder.measurements) and not as_json:
            click.echo(run_text(recorder.measurements))
            if recorder.stored is not None:
                click.echo(f"broken off; 'reslite bench show {recorder.run[:8]}' has this")
        raise
    finally:
        recorder.close()
    found = recorder.measurements
    if not found:
        raise UserError("; ".join(f"{one.name}: {one.not_run}" for one in not_run))
    order = [str(file) for file in whole]
    if as_json:
        click.echo(json.dumps(run_json(found, not_run, order)))
        return
    click.echo(run_text(found, not_run, order))
    if recorder.stored is not None:
        click.echo(f"run {recorder.run[:8]}, kept in {recorder.stored}")


@command.command("devices", epilog="Example: reslite bench devices")
def devices_command() -> None:
    """List the devices, what they tell and what is missing."""
    from benchmarks.devices.catalogue import TRANSPORTS, measuring
    from benchmarks.devices.device import TimedDevice
    from benchmarks.devices.remote import RemoteDevice
    from benchmarks.report.tables import text_table

    rows = [
        [
            name,
            "measured" if isinstance(one, TimedDevice) else one.evidence,
            one.unit or "ms",
            ", ".join(one.takes.formats),
            one.missing() or "ready",
        ]
        for name, one in measuring().items()
    ]
    rows += [
        [f"{name}:…", "measured", "ms", ", ".join(RemoteDevice.takes.formats), "by its name"]
        for name in TRANSPORTS
    ]
    click.echo(text_table(["device", "evidence", "unit", "takes", "state"], rows))


@command.command("list", epilog="Example: reslite bench list")
@_stored
def list_command(path: Path | None) -> None:
    """List the runs in the store, the latest last."""
    from benchmarks.report.store_tables import runs_text

    with _readable(path) as store:
        click.echo(runs_text(store.measurements()))


@command.command("show", epilog="Example: reslite bench show latest")
@click.argument("run", default=_LATEST)
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@_stored
def show_command(run: str, as_json: bool, path: Path | None) -> None:
    """Print the tables of a RUN of the store [default: latest]."""
    from benchmarks.report.bench_tables import run_json, run_text

    with _readable(path) as store:
        found = chosen_run(store, run)
    click.echo(json.dumps(run_json(found)) if as_json else run_text(found))


@command.command("compare", epilog="Example: reslite bench compare 3f2a latest")
@click.argument("before")
@click.argument("after")
@_stored
def compare_command(before: str, after: str, path: Path | None) -> None:
    """Compare the files that two runs share: AFTER against BEFORE."""
    from benchmarks.report.store_tables import comparison_text

    with _readable(path) as store:
        click.echo(comparison_text(chosen_run(store, before), chosen_run(store, after)))


@command.command("export", epilog="Example: reslite bench export --csv > results.csv")
@click.argument("runs", nargs=-1)
@click.option("--csv", "as_csv", is_flag=True, help="One line for each sample.")
@click.option("--json", "as_json", is_flag=True, help="What bench import reads.")
@_stored
def export_command(runs: tuple[str, ...], as_csv: bool, as_json: bool, path: Path | None) -> None:
    """Print RUNS of the store, or all, as CSV or JSON."""
    from benchmarks.report.store_tables import samples_csv
    from benchmarks.store import measurements_to_json

    if as_csv == as_json:
        raise click.UsageError("choose --csv or --json")
    with _readable(path) as store:
        if runs:
            found = [one for name in runs for one in chosen_run(store, name)]
        else:
            found = store.measurements()
    if as_csv:
        click.echo(samples_csv(found), nl=False)
    else:
        click.echo(json.dumps(measurements_to_json(found), ensure_ascii=False))


@command.command("import", epilog="Example: reslite bench import phone.json")
@click.argument("files", nargs=-1, required=True, type=_PATH)
@_stored
def import_command(files: tuple[Path, ...], path: Path | None) -> None:
    """Take in FILES of bench export --json, or other stores."""
    from benchmarks.store import Store, default_store, read_measurements

    for file in files:
        found = read_measurements(file)
        with Store(path or default_store()) as store:
            new = store.add(found)
        known = f", {len(found) - new} known before" if new < len(found) else ""
        click.echo(f"{file}: {new} measurements{known}")


def chosen_devices(names: tuple[str, ...]) -> list[Device]:
    """Return the devices of ``--device``, or this machine's CPU.

    Raises:
        UserError: If a name is unknown, or its device gives no figure of speed.
    """
    from benchmarks.devices.catalogue import measuring, named, remote_device
    from benchmarks.latency import DEFAULT_DEVICE

    known = measuring()
    for name in (part.strip() for one in names for part in one.split(",")):
        if (remote := remote_device(name)) is not None:
            known[name] = remote
    return named(names, known) or [known[DEFAULT_DEVICE]]


def chosen_run(store: Store, name: str) -> list[Measurement]:
    """Return the measurements of a run: 'latest', or the beginning of its name.

    Raises:
        UserError: If there is none, or several begin so.
    """
    from benchmarks.store import runs_of
    from runtime.errors import UserError

    known = runs_of(store.measurements())
    if not known:
        raise UserError(f"{store.path}: is empty; 'reslite bench FILES' measures")
    if name == _LATEST:
        return list(known.values())[-1]
    found = [run for run in known if run.startswith(name)]
    if len(found) != 1:
        what = "several runs begin so" if found else "no such run"
        raise UserError(f"{name}: {what} in {store.path}; 'reslite bench list' names them")
    return known[found[0]]


def _whole(files: dict[Path, None]) -> list[Path]:
    """Return the files without those that restore tiles in two passes."""
    from runtime.manifest import read_manifest

    def cut(file: Path) -> bool:
        manifest = read_manifest(file.parent)
        entry = manifest.artifact(file.name) if manifest else None
        return entry is not None and entry.pooling is not None

    # The latency of one pass would mislead.
    left_out = [file for file in files if cut(file)]
    if left_out:
        click.echo(f"left out, for they restore tiles: {', '.join(map(str, left_out))}", err=True)
    return [file for file in files if file not in left_out]


def _print_layers(
    files: tuple[Path, ...],
    devices: list[Device],
    size: tuple[int, int] | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Print the layers of files on the devices that tell them."""
    from dataclasses import asdict

    from benchmarks.devices.cpu import CPU
    from benchmarks.devices.ethos_u import EthosU, estimate
    from benchmarks.layers import layers_of
    from benchmarks.report.layer_table import profile_text
    from benchmarks.report.npu_layers import estimate_table
    from runtime.errors import UserError

    told: list[Any] = []
    texts: list[str] = []
    for device in devices:
        for file in files:
            if isinstance(device, EthosU):
                told.append(estimate(file, device.target))
                texts.append(estimate_table(told[-1]))
            elif isinstance(device, CPU):
                told.append(layers_of(file, size or _LAYERS_SIZE, threads or 1))
                texts.append(profile_text(told[-1]))
            else:
                raise UserError(f"{device.name}: tells no layers; leave --layers out")
    if as_json:
        click.echo(json.dumps([asdict(one) for one in told]))
    else:
        click.echo("\n\n".join(texts))


def _writable(path: Path | None) -> Store | None:
    """Return the store to write to; a run without one still prints its results."""
    from benchmarks.store import Store, default_store
    from runtime.errors import UserError

    try:
        return Store(path or default_store())
    except UserError as error:
        _warn(f"results are not stored: {error}")
        return None


def _readable(path: Path | None) -> Store:
    from benchmarks.store import Store, default_store

    return Store(path or default_store(), write=False)


def _warn(line: str) -> None:
    click.echo(f"reslite: {line}", err=True)
