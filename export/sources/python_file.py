"""Networks written in Python: a class or function of a file or of an installed module.

Reading such a network runs the file, as ``python my_net.py`` would.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from export.sources.foreign import Foreign, plain_name
from export.sources.options import Options
from export.sources.tensors import load, read_tensors
from export.sources.trial import tried
from runtime.errors import UserError, first_line, nearest
from runtime.manifest import sha256_of

_NAMED = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")


def is_python(name: str) -> bool:
    """Tell whether a name is that of a network in Python, or of a Python file."""
    return name.endswith(".py") or _NAMED.fullmatch(name) is not None


def read_python(name: str, options: Options) -> Foreign:
    """Build a network from Python.

    Random weights are drawn with the seed 0, so that each command makes the same network.

    Args:
        name: ``my_net.py:MyNet`` or ``package.module:MyNet``; an ``nn.Module`` class, a function
            that returns a module, or a module.
        options: Arguments and weights.

    Raises:
        UserError: If file, class or weights are missing, the code raises, arguments are missing or
            unknown, the weights do not fit, or the module does not turn one picture into one.
    """
    found = _NAMED.fullmatch(name)
    if found is None:
        raise UserError(f"{name}: name the class or function behind a colon, {_suggested(name)}")
    with torch.random.fork_rng(devices=[]), _for_stderr():
        torch.manual_seed(0)
        code = _imported(found["place"])
        module = _built(name, _member(code, *found.groups()), options.arguments)
    path = Path(found["place"])
    known: dict[str, Any] = {
        "class": found["name"],
        "arguments": dict(options.arguments),
        "weights": "as constructed, with seed 0 for random ones",
    }
    if options.weights is not None:
        load(module, read_tensors(options.weights), options.weights, found["name"])
        known["weights"] = {"file": options.weights.name, "sha256": sha256_of(options.weights)}
    return of_module(module, name=found["name"], path=path, title=name, known=known)


def of_module(
    module: nn.Module, name: str, path: Path, title: str, known: Mapping[str, Any]
) -> Foreign:
    """Return a module as a network that can be exported, in float32 and evaluation mode.

    Args:
        module: From N × 3 × H × W pictures in [0, 1], or N × 1 × H × W luma, to restored ones;
            changed in place.
        name: What its files are named after.
        path: Where it comes from, for messages and manifests.
        title: What errors call it.
        known: What the manifest says of it.

    Raises:
        UserError: If it turns neither RGB pictures nor luma into such.
    """
    module = module.cpu().float().eval().requires_grad_(False)
    _check_inputs(module, title)
    with _for_stderr():
        found = tried(module, dict(module.named_parameters()), title, _REMEDY, (3, 1))
    return Foreign(
        name=plain_name(name, found.scale),
        path=path,
        sha256=_fingerprint(module),
        architecture=type(module).__name__,
        known=known,
        modules={found.scale: module},
        colours=found.colours,
    )


_REMEDY = "leave them out of the network, or use them"


def _suggested(name: str) -> str:
    """Return an example of a name, and what a file defines."""
    path = Path(name)
    example = f"for example {path.name}:MyNet"
    if not path.is_file():
        return f"{example} (and there is no such file)"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return example
    defined = [one.name for one in tree.body if isinstance(one, ast.ClassDef | ast.FunctionDef)]
    return f"for example {path.name}:{defined[-1]}" if defined else example


@contextlib.contextmanager
def _for_stderr() -> Iterator[None]:
    """Send what the person's code prints to stderr: stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _imported(place: str) -> ModuleType:
    """Run a Python file, or import an installed module."""
    if not place.endswith(".py"):
        return _imported_by_name(place)
    path = Path(place)
    if not path.is_file():
        raise UserError(f"{place}: no such file; expected Python code that defines the network")
    resolved = path.resolve()
    # Another file of the same name must not replace this one while its classes are in use.
    unique = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{unique}", resolved)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # dataclasses and torch look for classes there
    sys.path.insert(0, str(resolved.parent))  # as for a script, for modules beside the file
    try:
        spec.loader.exec_module(code)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UserError(f"{place}: {_raised(error, resolved)}") from error
    finally:
        sys.path.remove(str(resolved.parent))
    return code


def _imported_by_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{name}: no such installed module; a file is named with its .py"
            ) from error
        raise UserError(f"{name}: {_raised(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{name}: {_raised(error)}") from error


def _raised(error: BaseException, path: Path | None = None) -> str:
    """Say what was raised, and in which line of a file if it passed through it."""
    if isinstance(error, SyntaxError):
        return f"no valid Python in line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if path and Path(frame.filename) == path]
    place = f" in line {lines[-1]}" if lines else ""
    return f"raises {type(error).__name__}{place}: {first_line(error)}"


def _member(code: ModuleType, place: str, name: str) -> Any:
    if not hasattr(code, name):
        defined = [
            key
            for key, value in vars(code).items()
            if inspect.isclass(value) or inspect.isfunction(value)
            if value.__module__ == code.__name__ and not key.startswith("_")
        ]
        known = f"it defines {', '.join(defined)}" if defined else "it defines no classes"
        raise UserError(f"{place}: has no '{name}'; {known}{nearest(name, defined)}")
    return getattr(code, name)


def _built(name: str, target: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Call a class or a function with arguments."""
    if isinstance(target, nn.Module):
        if arguments:
            raise UserError(f"{name}: is a module already, and takes no --with")
        return target
    if not callable(target):
        raise UserError(
            f"{name}: expected a class of nn.Module or a function that returns a module; found "
            f"{type(target).__name__}"
        )
    _check_arguments(name, target, arguments)
    called = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    try:
        built = target(**arguments)
    except (Exception, SystemExit) as error:
        path = Path(inspect.getsourcefile(target) or "")
        raise UserError(f"{name}({called}): {_raised(error, path)}") from error
    if not isinstance(built, nn.Module):
        raise UserError(f"{name}({called}): expected an nn.Module; found {type(built).__name__}")
    return built


def _check_arguments(name: str, target: Any, arguments: Mapping[str, Any]) -> None:
    """Compare arguments with what a class or function takes.

    Raises:
        UserError: If some are missing or unknown.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # built into Python
        return
    free = any(one.kind is one.VAR_KEYWORD for one in parameters)
    taken = [one for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    names = [one.name for one in taken]
    unknown = [] if free else [key for key in arguments if key not in names]
    if unknown:
        takes = f"it takes {', '.join(names)}" if names else "it takes no arguments"
        raise UserError(f"{name}: takes no '{unknown[0]}'; {takes}{nearest(unknown[0], names)}")
    needed = [one.name for one in taken if one.default is one.empty and one.name not in arguments]
    if needed:
        options = " ".join(f"--with {one}=…" for one in needed)
        raise UserError(f"{name}: needs {' and '.join(needed)}; say {options}")


def _check_inputs(module: nn.Module, title: str) -> None:
    """Check that a module takes one picture and nothing else.

    Raises:
        UserError: If its ``forward`` needs more or fewer arguments.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = [one.name for one in parameters if one.kind in (*positional, one.VAR_POSITIONAL)]
    needed = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if not takes or len(needed) > 1:
        raise UserError(
            f"{title}: its forward takes {', '.join(needed) or 'no picture'}; expected one "
            "picture. A function that returns a module with the others fixed can stand for it"
        )


def _fingerprint(module: nn.Module) -> str:
    """Return a SHA-256 that changes with what a module computes.

    That is its tensors, the plain attributes of its modules, and the files of their classes.
    """
    digest = hashlib.sha256()
    for name, one in module.named_modules():
        plain = {key: value for key, value in vars(one).items() if _is_plain(value)}
        digest.update(json.dumps([name, type(one).__name__, plain], sort_keys=True).encode())
    for path in sorted(_source_files(module), key=lambda one: one.name):
        digest.update(path.read_bytes())
    tensors: dict[str, Tensor] = {**dict(module.named_buffers()), **module.state_dict()}
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _source_files(module: nn.Module) -> set[Path]:
    """Return the files that define the classes of a module, without those of torch."""
    files = set()
    for one in {type(each) for each in module.modules()}:
        if one.__module__.partition(".")[0] != "torch":
            with contextlib.suppress(TypeError, OSError):  # defined at a prompt
                files.add(Path(inspect.getsourcefile(one) or ""))
    return {path for path in files if path.is_file()}
