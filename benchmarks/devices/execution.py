"""The process in which a device executes one file, so that an abort or a hang ends only itself.

Its only argument is a folder: ``request.json`` names the device and the file, ``pictures.npz``
holds the pictures; it writes ``reply.json`` and ``outputs.npz``. ``benchmarks.devices.isolated``
makes the folder and starts the process.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.devices.device import Device, Execution, Subject
from runtime.errors import UserError, first_line
from runtime.manifest import Artifact
from runtime.records import from_json, to_json
from runtime.session import FloatPicture
from runtime.sides import Sides

REQUEST, PICTURES, REPLY, OUTPUTS = "request.json", "pictures.npz", "reply.json", "outputs.npz"


@dataclass(frozen=True)
class Request:
    """What is to be executed.

    Attributes:
        catalogue: Module whose ``DEVICES`` holds the device.
        device: The device's name.
        path: The file.
        artifact: Its entry in the manifest.
        scale: Upscaling factor of the network.
        sides: The heights and widths that the network takes.
    """

    catalogue: str
    device: str
    path: str
    artifact: Artifact
    scale: int
    sides: Sides

    @property
    def subject(self) -> Subject:
        """The file as devices take it."""
        return Subject(Path(self.path), self.artifact, self.scale, self.sides)


@dataclass(frozen=True)
class Reply:
    """What came of it: an error, or the execution without its outputs.

    Attributes:
        error: The reason, or None.
        execution: The execution, its outputs None.
        outputs: Number of outputs in their own file; None where nothing was computed.
    """

    error: str | None = None
    execution: Execution | None = None
    outputs: int | None = None


def write_pictures(path: Path, pictures: tuple[FloatPicture, ...]) -> None:
    """Write pictures in order."""
    np.savez(path, *pictures)


def read_pictures(path: Path) -> tuple[FloatPicture, ...]:
    """Read pictures in order."""
    with np.load(path) as stored:
        return tuple(stored[f"arr_{index}"] for index in range(len(stored.files)))


def answer(folder: Path) -> Reply:
    """Execute the request in ``folder`` and write the outputs."""
    request = from_json(Request, json.loads((folder / REQUEST).read_text(encoding="utf-8")))
    device: Device = import_module(request.catalogue).DEVICES[request.device]
    try:
        done = device.execute(request.subject, read_pictures(folder / PICTURES))
    except UserError as error:
        return Reply(error=str(error))
    except Exception as error:  # the runtimes' exceptions share no other base class
        return Reply(error=f"{type(error).__name__}: {first_line(error)}")
    if done.outputs is None:
        return Reply(execution=done)
    write_pictures(folder / OUTPUTS, done.outputs)
    return Reply(execution=replace(done, outputs=None), outputs=len(done.outputs))


def main(folder: Path) -> None:
    """Execute the request in ``folder`` and write the reply."""
    reply = json.dumps(to_json(answer(folder)))
    (folder / REPLY).write_text(reply, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
