"""What a rewrite adds to a graph: activations and constants, and what each of them stands for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from export.graph import Array, Graph, Node


class Additions:
    """Collects what one rewrite adds to a graph.

    Names are proposals: a name that something else bears gets a ``'``, so that no addition hides
    another or a value of the captured graph, whatever that is called.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken = set(graph.names)
        self._constants: dict[str, Array] = {}
        self._origins: dict[str, str] = {}

    def constant(self, name: str, array: Array, origin: str | None = None) -> str:
        """Add a constant and return its name; equal constants of one name are one.

        Args:
            name: The name to give it.
            array: Its values.
            origin: The constant of the graph that it stands for; None if the rewrite made it up.
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
        """Note that ``name`` is now another activation in the place of the one called so."""
        self._origins[name] = name
        return name

    def graph(self, nodes: Iterable[Node]) -> Graph:
        """Return the graph of ``nodes``, with the additions that they read or make."""
        return self._graph.with_nodes(tuple(nodes), self._constants, self._origins)
