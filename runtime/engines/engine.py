"""The contract of engines: an inference library that runs one file, tensor by tensor.

An engine knows its library and nothing about pictures: ``runtime.session.Session`` does. The module
of an engine is called after the name that ``runtime.formats`` lists, ``<name>_engine``, and has a
function ``open_engine(path, threads)`` that returns it or raises ``UserError``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from numpy.typing import NDArray

from runtime.manifest import TensorInfo


class Engine(ABC):
    """A network loaded by an inference library.

    Attributes:
        name: Library, version and device that really execute it.
        inputs: Its inputs, with the scales of 8-bit ones.
        outputs: Its outputs, in the same way.
    """

    def __init__(
        self, name: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs

    @abstractmethod
    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Hand over the values of an input for the next ``invoke``, and those after it.

        Args:
            name: Of the input.
            array: C-contiguous, of the input's type; its shape may differ from that of the array
                before where the input's extents are free.

        Raises:
            RuntimeError: If the network cannot run at this shape; ``ValueError`` likewise.
        """

    @abstractmethod
    def invoke(self) -> None:
        """Run the network on what was fed. This is what latencies measure: no copies in here."""

    @abstractmethod
    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output of the last ``invoke``, an array that later ones do not change."""

    @abstractmethod
    def close(self) -> None:
        """Release the library's memory; the engine is of no use afterwards."""
