"""``reslite prove``: execute the files of bundles on runtimes of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from benchmarks.devices.device import Device
    from benchmarks.proof import Row

_PATH = click.Path(path_type=Path)


@click.command("prove", epilog="Example: reslite prove dist/ --on litert-gpu,openvino")
@click.argument("bundles", nargs=-1, type=_PATH)
@click.option(
    "--on", metavar="NAMES", help="Devices, separated by commas [default: all]; see --list."
)
@click.option("--list", "listed", is_flag=True, help="List the devices and what is missing.")
@click.option(
    "--prepare",
    metavar="NAMES",
    help="Install the runtimes of these devices (or 'all') into environments of their own.",
)
@click.option("--again", is_flag=True, help="Execute even what is known from an earlier call.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--markdown", type=_PATH, help="Write the table to this file.")
def command(
    bundles: tuple[Path, ...],
    on: str | None,
    listed: bool,
    prepare: str | None,
    again: bool,
    as_json: bool,
    markdown: Path | None,
) -> int:
    """Execute the files of BUNDLES on other runtimes and compare the results.

    Every file is compared with what LiteRT or ONNX Runtime makes of it here. No time is measured.
    The exit code is 1 if a file fails on a device, or a device could not be run.
    """
    from benchmarks.devices.catalogue import proving
    from benchmarks.proof import failures, prove
    from benchmarks.report import proof_table
    from runtime.atomic import replacing
    from runtime.records import to_json

    lacking: list[str] = []
    if prepare is not None:
        lacking = prepare_environments(chosen_devices(None if prepare == "all" else prepare))
    if listed:
        click.echo(proof_table.as_list(proving()))
    if not bundles:
        if listed or prepare is not None:
            return 1 if lacking else 0
        raise click.UsageError("name a folder that 'reslite ship' made, or --list")
    devices = chosen_devices(on)
    rows: list[Row] = []
    for bundle in bundles:
        rows += prove(
            bundle,
            devices,
            again=again,
            told=lambda row: None if as_json else click.echo(proof_table.as_line(row)),
        )
    if as_json:
        click.echo(json.dumps([to_json(row) for row in rows], indent=2, ensure_ascii=False))
    if markdown is not None:
        with replacing(markdown) as temporary:
            temporary.write_text(proof_table.as_markdown(rows), encoding="utf-8")
    failed = failures(rows)
    if failed:
        click.echo("\n".join(["", "not proven:", *failed]), err=True)
    return 1 if failed else 0


def chosen_devices(names: str | None) -> list[Device]:
    """Return the devices of a list of names, or all.

    Raises:
        UserError: If a name is unknown.
    """
    from benchmarks.devices.catalogue import named, proving

    if names is None:
        return proving()
    return named([names], {device.name: device for device in proving()})


def prepare_environments(devices: list[Device]) -> list[str]:
    """Make the environments of devices; one that cannot be made does not stop the others.

    Returns:
        The names of those that could not be made, which has been told.
    """
    from benchmarks.devices.environments import SeparateDevice, prepare
    from runtime.errors import UserError

    lacking = []
    separate = [one for one in devices if isinstance(one, SeparateDevice)]
    for name in dict.fromkeys(one.environment_name for one in separate if one.missing()):
        click.echo(f"preparing {name} …", err=True)
        try:
            prepare(name)
        except UserError as error:
            click.echo(f"reslite: {error}", err=True)
            lacking.append(name)
    return lacking
