"""Core AI assets (beta) through Apple's own library, which runs them on Linux and macOS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Coroutine
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.engines.coreai_library import KNOWN_VERSION, check_library
from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import TensorInfo
from runtime.native_messages import kept_messages

_FUNCTION = "main"

Result = TypeVar("Result")


def open_engine(path: Path, threads: int) -> Engine:
    """Load an ``.aimodel``; the library decides itself how many threads it uses.

    Raises:
        UserError: If it cannot be read, or the library is missing or of an unknown version.
    """
    check_library()
    _check_program(path)
    loop = _Loop()
    try:
        with kept_messages():
            return CoreAIEngine(loop, *loop.run(_loaded(path)))
    except Exception as error:  # of several kinds, from Python and from the library
        loop.stop()
        raise UserError(
            f"{path}: Core AI cannot read it ({first_line(error)}); export it again"
        ) from error


class CoreAIEngine(Engine):
    """The function ``main`` of an asset (NCHW tensors)."""

    def __init__(self, loop: _Loop, function: Any, opened: contextlib.AsyncExitStack) -> None:
        described = function.desc
        inputs = [_info(name, described.input_descriptor(name)) for name in described.input_names]
        outputs = [
            _info(name, described.output_descriptor(name)) for name in described.output_names
        ]
        # The library interprets the program itself, unless it is told to use that of macOS.
        super().__init__(f"Core AI {KNOWN_VERSION} (beta, CPU)", tuple(inputs), tuple(outputs))
        self._loop, self._function, self._opened = loop, function, opened
        self._feeds: dict[str, Any] = {}
        self._results: dict[str, Any] = {}

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Set the values of an input."""
        from coreai.runtime import NDArray as Tensor

        self._feeds[name] = Tensor(array)

    def invoke(self) -> None:
        """Run the network."""
        self._results = self._loop.run(self._function(self._feeds))

    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output; every ``invoke`` makes new arrays."""
        return np.array(self._results[name].numpy())

    def close(self) -> None:
        """Release the model and its tensors, and end the thread that ran it."""
        if self._function is not None:
            self._function, self._feeds, self._results = None, {}, {}
            self._loop.run(self._opened.aclose())
            self._loop.stop()


class _Loop:
    """An event loop in a thread of its own, because callers may have one that runs already."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="Core AI", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _loaded(path: Path) -> tuple[Any, contextlib.AsyncExitStack]:
    """Return the function of an asset, and what has to be closed after it."""
    from coreai.authoring import AIModelAsset

    opened = contextlib.AsyncExitStack()
    model = await opened.enter_async_context(AIModelAsset.load(path.resolve()).executable())
    return model.load_function(_FUNCTION), opened


def _check_program(path: Path) -> None:
    """Refuse an asset whose program is not the one that its hash was made of."""
    try:
        program, known = (path / "main.mlirb").read_bytes(), (path / "main.hash").read_bytes()
    except OSError as error:
        raise UserError(f"{path}: holds no Core AI program; export it again") from error
    if hashlib.sha256(program).digest() != known:
        raise UserError(f"{path}: its program is damaged; export it again")


def _info(name: str, described: Any) -> TensorInfo:
    shape = tuple(None if extent is None or extent < 0 else extent for extent in described.shape)
    return TensorInfo(name, "NCHW", described.dtype, shape)
