"""Activations and constants that a rewrite adds to a graph, with their origins."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from export.graph import Array, Graph, Node


class Additions:
    """The activations and constants that one rewrite adds to a graph.

    Names are proposals: a name that already exists gets a ``'``, so that an addition never hides
    another addition or a value of the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken = set(graph.names)
        self._constants: dict[str, Array] = {}
        self._origins: dict[str, str] = {}

    def constant(self, name: str, array: Array, origin: str | None = None) -> str:
        """Add a constant and return its name; constants equal in name and values are stored once.

        Args:
            name: The proposed name.
            array: The values.
            origin: The constant of the graph that the new one stands for; None if the rewrite made
                it up.
        """
        while name in self._taken and not np.array_equal(self._constants.get(name, ()), array):
            name += "'"
        self._taken.add(name)
        self._constants[name], self._origins[name] = array, name if origin is None else origin
        return name

    def activation(self, name: str, origin: str) -> str:
        """Add an activation that stands for ``origin`` in tables of scales; return its name."""
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        self._origins[name] = origin
        return name

    def replacement(self, name: str) -> str:
        """Record that the activation ``name`` holds other values than in the graph; return it."""
        self._origins[name] = name
        return name

    def graph(self, nodes: Iterable[Node]) -> Graph:
        """Return the graph of ``nodes``, with the additions that ``nodes`` read or make."""
        return self._graph.with_nodes(tuple(nodes), self._constants, self._origins)
