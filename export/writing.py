"""What every writer tells about the file it wrote."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.manifest import PoolingTensors, TensorInfo


@dataclass(frozen=True)
class Written:
    """The interface of a written file.

    Attributes:
        input: Its picture tensor.
        output: Its restored tensor.
        operators: How often each of the format's operators occurs in it.
        pooling: The tensors of a file that was cut at its global pooling.
    """

    input: TensorInfo
    output: TensorInfo
    operators: dict[str, int]
    pooling: PoolingTensors | None = None
