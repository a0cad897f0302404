"""The contract of engines: an inference library that runs one file, tensor by tensor.

An engine handles tensors; ``runtime.session.Session`` handles pictures. The module of an engine is
``runtime.engines.<name>_engine``, with a name that ``runtime.formats`` lists, and has a function
``open_engine(path, threads)`` that returns the engine or raises ``UserError``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from numpy.typing import NDArray

from runtime.manifest import TensorInfo


class Engine(ABC):
    """A network loaded by an inference library.

    Attributes:
        name: Library, version and device that actually run the network.
        inputs: Input tensors, with scale and zero point if they are integers.
        outputs: Output tensors, likewise.
    """

    def __init__(
        self, name: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs

    @abstractmethod
    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Set the values of an input for all following calls of ``invoke``.

        Args:
            name: Name of the input tensor.
            array: C-contiguous, of the input's type; where the input's extents are free, the shape
                may change from call to call.

        Raises:
            RuntimeError: If the network cannot run at this shape; ``ValueError`` likewise.
        """

    @abstractmethod
    def invoke(self) -> None:
        """Run the network on the inputs. Latencies time this call, so it copies no tensors."""

    @abstractmethod
    def fetch(self, name: str) -> NDArray[Any]:
        """Return an output of the last ``invoke``; later calls do not change the array."""

    @abstractmethod
    def close(self) -> None:
        """Release the library's memory; the engine cannot be used afterwards."""
