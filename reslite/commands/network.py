"""Naming a network on the command line: one argument and its options, for every verb."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from export.sources.options import Architecture, Colour, Options

if TYPE_CHECKING:
    from export.sources.source import Trained

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""Numbers that YAML 1.1 takes for text, such as 1e-3."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network as a person names it.

    Attributes:
        name: Its name or file.
        scale: Upscaling factor; None for the only one.
        options: What else is said of it.
    """

    name: str
    scale: int | None
    options: Options

    def find(self) -> tuple[Trained, int]:
        """Return the network and its scale.

        Raises:
            UserError: If there is none, or not at this scale.
        """
        from export.sources.finding import find_network

        found = find_network(self.name, self.options)
        return found, found.chosen_scale(self.scale)


def parse_arguments(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> Mapping[str, Any]:
    """Read arguments such as channels=64, values in YAML's spelling (a click callback)."""
    if not value:
        return {}
    import yaml

    arguments: dict[str, Any] = {}
    for one in value:
        key, given, text = one.partition("=")
        if not given or not key.isidentifier():
            raise click.BadParameter(f"{one}: expected KEY=VALUE, for example channels=64")
        if key in arguments:
            raise click.BadParameter(f"{key}: given twice")
        try:
            found = float(text) if _NUMBER.fullmatch(text) else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{one}: the value is not valid YAML") from error
        if not _is_plain(found):
            raise click.BadParameter(
                f"{one}: expected a number, a text, true, false, null or a list"
            )
        arguments[key] = found
    return arguments


def _is_plain(value: object) -> bool:
    """Tell whether a value can stand in a manifest."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


Command = Callable[..., Any]


def network_options(about_weights: str) -> Callable[[Command], Command]:
    """Add the options that say more of a network; the command takes them as ``options``.

    Args:
        about_weights: The help of ``--weights``.
    """

    def decorated(command: Command) -> Command:
        @click.option("--weights", type=click.Path(path_type=Path), help=about_weights)
        @click.option(
            "--with",
            "arguments",
            metavar="KEY=VALUE",
            multiple=True,
            callback=parse_arguments,
            help="Argument of a network from Python, for example channels=64; may be repeated.",
        )
        @click.option(
            "--as",
            "architecture",
            type=click.Choice(get_args(Architecture)),
            help="Network of a checkpoint by CARN's authors [default: by names of tensors].",
        )
        @click.option(
            "--range",
            "peak",
            type=click.IntRange(min=1),
            help="White in the pictures that the network of a file takes and returns, for example "
            "255 [default: 1].",
        )
        @click.option(
            "--colour",
            type=click.Choice(get_args(Colour)),
            help="Colours that the network of a file takes and returns, or luma over the whole "
            "range (y) or that of video and MATLAB [default: rgb, or y if it has one channel].",
        )
        @wraps(command)
        def with_options(**given: Any) -> Any:
            said = {one.name: given.pop(one.name) for one in fields(Options)}
            return command(options=Options(**said), **given)

        return with_options

    return decorated


def takes_network(command: Command) -> Command:
    """Add the argument MODEL and its options; the command takes them as ``network``."""

    @click.argument("model")
    @click.option("--scale", type=int, help="Upscaling factor, if the network has several.")
    @network_options("Weights of a network from Python: .safetensors or .pth.")
    @wraps(command)
    def with_network(*, model: str, scale: int | None, options: Options, **others: Any) -> Any:
        return command(network=NamedNetwork(model, scale, options), **others)

    return with_network
