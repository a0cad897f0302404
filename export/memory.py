"""Refusing input sizes that a file cannot have, before anything is written.

The network takes no such sides, the proof of the file has no memory for them, or its tiles would be
all halo.
"""

from __future__ import annotations

import os

from export.graph import Graph
from export.rewrites.pooling import restores_tiles
from runtime.errors import UserError

_ASSUMED = 16_000_000_000  # bytes, where the system does not tell


def least_memory(graph: Graph, size: tuple[int, int]) -> int:
    """Return the bytes that running a network takes at least: twice its largest activation.

    An operator reads one activation and makes another; the largest is often read by a Relu, which
    makes one of the same size. Real peaks are higher.

    Args:
        graph: The network.
        size: Height and width of the input.
    """
    channels, sizes = graph.channels(), graph.sizes()
    values = max(
        channels[name] * rows.of(size[0]) * columns.of(size[1])
        for name, (rows, columns) in sizes.items()
    )
    return 2 * 4 * values


def check_size(graph: Graph, size: tuple[int, int]) -> None:
    """Check that this machine can run a network at a size.

    Args:
        graph: The network.
        size: Height and width of the input.

    Raises:
        UserError: If the network takes other sizes, or running it takes more memory than there is.
    """
    if not graph.sides.fit(size):
        fitting = "x".join(str(graph.sides.fitting(side)) for side in size)
        raise UserError(
            f"this network takes sides that are multiples of {graph.sides.multiple} pixels, "
            f"{graph.sides.minimum} or more; found {size[0]}x{size[1]}, choose --size {fitting}"
        )
    needed, available = least_memory(graph, size), _memory()
    if needed > available:
        raise UserError(
            f"an input of {size[0]}x{size[1]} takes {needed / 1e9:,.1f} GB of memory or more, this "
            f"machine has {available / 1e9:,.1f} GB; choose a smaller --size (larger pictures are "
            "restored in tiles)"
        )


def check_tiles(graph: Graph, size: tuple[int, int]) -> None:
    """Check that a file fixed at a size restores larger pictures, in tiles of this size.

    Networks that restore no tiles take pictures up to this size, whatever it is.

    Args:
        graph: The network.
        size: Height and width of the input.

    Raises:
        UserError: If the halo leaves no pixel of such a tile.
    """
    multiple = graph.sides.multiple
    lost = 2 * -(-graph.halo() // multiple) * multiple
    if restores_tiles(graph) and min(size) <= lost:
        least = graph.sides.fitting(lost + 1)
        raise UserError(
            f"tiles of {size[0]}x{size[1]} are all halo: this network loses {lost // 2} pixels at "
            f"each edge; choose --size {least}x{least} or larger (a file for pictures of exactly "
            "this size is made by 'reslite export --size')"
        )


def _memory() -> int:
    """Return the memory of this machine in bytes."""
    if not hasattr(os, "sysconf"):
        return _ASSUMED
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
