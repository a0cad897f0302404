"""Where the time of an inference goes: the runtimes' own profilers, joined to the file's operators.

LiteRT and ONNX Runtime report what they execute, which is not what the file says: they fuse, copy
and transpose. Each executed step is given back to the operator of the file that it serves, with the
operator's MultAdds and bytes at this size. Profiling costs time itself: compare shares, and take
latencies from ``reslite bench`` without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from runtime.errors import UserError
from runtime.records import from_json, to_json

PROFILERS = {
    ".tflite": "benchmarks.devices.litert_profile",
    ".onnx": "benchmarks.devices.onnxruntime_profile",
}
"""Module of each format, with ``profile(path, size, threads, runs) -> Profile``."""

OTHER = "(runtime)"
"""Operator of what the runtime executes for no operator of the file."""


@dataclass(frozen=True)
class Layer:
    """An operator of the file and what it took.

    Attributes:
        operator: Its kind in the file, for example ``CONV_2D`` or ``Conv``; convolutions in groups
            and of 1 × 1 are told apart.
        name: The module whose weights it has, or the name of its output.
        steps: What the runtime executed for it.
        milliseconds: Median over the runs.
        multadds: Multiply-accumulates at this size, as the file has them.
        bytes: Bytes of its inputs, weights and outputs.
    """

    operator: str
    name: str
    steps: tuple[str, ...]
    milliseconds: float
    multadds: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Profile:
    """The layers of one file.

    Attributes:
        file: Name of the file.
        runtime: Library and version.
        size: Height and width of the input.
        threads: CPU threads.
        runs: Profiled inferences.
        layers: The operators in the order they run.
        joined: Whether each step was given to an operator; if not, the steps stand alone.
    """

    file: str
    runtime: str
    size: tuple[int, int]
    threads: int
    runs: int
    layers: tuple[Layer, ...]
    joined: bool = True


@dataclass(frozen=True)
class Kind:
    """All operators of one kind.

    Attributes:
        operator: The kind.
        count: How many there are.
        milliseconds: Of all.
        share: Of the time of all kinds.
        multadds: Of all.
        multadds_share: Of the MultAdds of all kinds.
        bytes: Of all.
    """

    operator: str
    count: int
    milliseconds: float
    share: float
    multadds: int
    multadds_share: float
    bytes: int


def kinds_of(layers: Sequence[Layer]) -> list[Kind]:
    """Return the layers by kind, the kind that takes most time first."""
    time = sum(one.milliseconds for one in layers) or 1.0
    work = sum(one.multadds for one in layers) or 1
    kinds = []
    for operator in dict.fromkeys(one.operator for one in layers):
        chosen = [one for one in layers if one.operator == operator]
        spent = sum(one.milliseconds for one in chosen)
        done = sum(one.multadds for one in chosen)
        moved = sum(one.bytes for one in chosen)
        kinds.append(Kind(operator, len(chosen), spent, spent / time, done, done / work, moved))
    return sorted(kinds, key=lambda one: -one.milliseconds)


def layers_of(path: Path, size: tuple[int, int], threads: int, runs: int = 30) -> Profile:
    """Profile a file in a process of its own.

    Args:
        path: A .tflite or .onnx file.
        size: Height and width of the input; a file of fixed size takes no other.
        threads: CPU threads.
        runs: Inferences to profile, after three that are not.

    Raises:
        UserError: If the format has no profiler, or the runtime does not run the file.
    """
    if path.suffix.lower() not in PROFILERS:
        raise UserError(f"{path}: layers are told of {' and '.join(PROFILERS)} files only")
    if not path.exists():
        raise UserError(f"{path}: no such file; 'reslite export' makes one")
    request = json.dumps([str(path), *size, threads, runs])
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.layers", request],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if run.returncode:
        said = run.stderr.strip().splitlines()
        raise UserError(f"{path.name}: cannot be profiled ({said[-1] if said else 'no reason'})")
    return from_json(Profile, json.loads(run.stdout.splitlines()[-1]))


def main(request: str) -> None:
    """Profile the file of a request and print the result as the last line."""
    path, height, width, threads, runs = json.loads(request)
    module = import_module(PROFILERS[Path(path).suffix.lower()])
    profile: Profile = module.profile(Path(path), (height, width), threads, runs)
    print(json.dumps(to_json(profile)))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UserError as failure:
        sys.exit(str(failure))
