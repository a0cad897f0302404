"""What every writer tells about the file it wrote."""

from __future__ import annotations

from dataclasses import dataclass

from export.graph import Graph
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


def planar_tensor(graph: Graph, value: str, size: tuple[int, int] | None) -> TensorInfo:
    """Describe an activation that a file holds as float32 planes, NCHW, of a size or of any."""
    shape = (1, graph.channels()[value], *(size or (None, None)))
    return TensorInfo(value, "NCHW", "float32", shape)


def planar_pooling(graph: Graph, size: tuple[int, int] | None) -> PoolingTensors | None:
    """Describe what a file that was cut at its pooling takes and returns beside pictures, NCHW."""
    if graph.pooling is None:
        return None
    features = planar_tensor(graph, graph.pooling.features, size)
    return PoolingTensors(features, planar_tensor(graph, graph.pooling.pooled, (1, 1)))
