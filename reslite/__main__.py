"""The command line: a group of verbs, imported lazily, and the handling of errors."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import click

from reslite.packages import ShadowedPackage, check_packages

VERBS = (
    "models",
    "inspect",
    "train",
    "interpolate",
    "make-dataset",
    "evaluate",
    "explain",
    "export",
    "quantize",
    "ship",
    "restore",
    "bench",
    "bench-training",
    "gate",
    "prove",
    "serve",
)
_ALIASES = {"upscale": "restore"}
_EXTRAS = {
    "torch": "export",
    "safetensors": "export",
    "pydantic": "export",
    "yaml": "export",
    "filelock": "train",
    "tensorboard": "train",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "coremltools": "export",
    "flatbuffers": "export",
    "jinja2": "bench",
    "matplotlib": "bench",
    "spandrel": "spandrel",
    "psutil": "bench",
    "skimage": "demo",
    "openvino": "openvino",
    "coreai": "coreai",
    "ethosu": "npu",
    "segno": "serve",
    "starlette": "serve",
    "trustme": "serve",
    "uvicorn": "serve",
}


_INTERRUPTED = "interrupted; finished work is kept, the same command continues from there"


class _Verbs(click.Group):
    """The group of verbs: modules of ``reslite.commands``, imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = _ALIASES.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        command = import_module(f"reslite.commands.{name.replace('-', '_')}").command
        return command if isinstance(command, click.Command) else None


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: reslite ship carn-m --scale 4 --out dist/",
)
@click.version_option(package_name="reslite")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Image restoration from training to the phone, with measured proof."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 the caller's mistake."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        check_packages()
        outcome = cli.main(arguments, prog_name="reslite", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail(_INTERRUPTED, 2)
    except Exception as error:
        if _was_interrupted(error):
            return _fail(_INTERRUPTED, 2)
        if debug:
            raise
        return _fail(*_explained(error))
    return outcome if isinstance(outcome, int) else 0


def _was_interrupted(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C caused ``error``; extension modules wrap it into their own exceptions."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _explained(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code of an error."""
    if isinstance(error, ShadowedPackage):
        return str(error), 2
    # Imported here, after check_packages: before, 'runtime' might be another package.
    from runtime.errors import UserError

    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, PermissionError):
        return f"{error.filename}: may not be accessed; change its permissions", 2
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(package)
        if extra is not None:
            return f"this needs {package}: pip install 'reslite[{extra}]'", 2
    return f"{type(error).__name__}: {error} (run 'reslite --debug …' for the traceback)", 1


def _fail(message: str, code: int) -> int:
    click.echo(f"reslite: {message}", err=True)
    return code


def run() -> None:
    """Entry point of the ``reslite`` script."""
    # SIGTERM is handled like Ctrl-C, so that no partial file stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = main()
    # A closed pipe (reslite models | head) must not print a traceback at exit.
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


if __name__ == "__main__":
    run()
