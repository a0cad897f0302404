"""A network from elsewhere tried on one picture: does it restore pictures, by all its weights?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runtime.errors import UserError, first_line

_SIDES = (6, 9)
"""Height and width in pixels of the picture that a network is tried on."""

_AS_MADE = (0.25, 1.0, 0.0)

_EXPECTED: Mapping[int, str] = {
    3: "RGB pictures, three channels in and three out",
    1: "luma, one channel in and one out",
}

_BLOCKS = (96, 192)
"""Those of another, for networks that take multiples of several pixels, or many of them."""


@dataclass(frozen=True)
class Trial:
    """What a network did to a picture.

    Attributes:
        scale: How many times larger it made it.
        colours: Channels of the picture: 3 for RGB, 1 for luma.
    """

    scale: int
    colours: int


def tried(
    network: Callable[[Tensor], object],
    parameters: Mapping[str, Tensor],
    title: str,
    remedy: str,
    colours: Sequence[int] = (3,),
) -> Trial:
    """Restore a picture.

    Args:
        network: From N × C × H × W pictures to restored ones.
        parameters: Its weights by name.
        title: What the network is called in errors.
        remedy: What to do about weights that are never read.
        colours: Channels that pictures may have, C; the network takes the first that it can.

    Raises:
        UserError: If the network raises, returns something else than one such picture of the size
            or a whole multiple, values that are not finite, or never reads some trained weights.
    """
    read: set[int] = set()
    with _kept_by(read):
        found = _first_that_works(network, title, colours)
    unread = [
        name for name, one in parameters.items() if id(one) not in read and not _is_as_made(one)
    ]
    if unread:
        more = ", …" if len(unread) > 1 else ""
        raise UserError(
            f"{title} never reads {len(unread)} of its tensors ({unread[0]}{more}); {remedy}"
        )
    return found


def _is_as_made(tensor: Tensor) -> bool:
    """Tell whether a tensor holds what torch makes slopes, factors and shifts of: untrained.

    Such a tensor belongs to a layer that the network never used, in its training either.
    """
    return tensor.numel() > 0 and any(bool((tensor == one).all()) for one in _AS_MADE)


def _first_that_works(
    network: Callable[[Tensor], object], title: str, colours: Sequence[int]
) -> Trial:
    first: UserError | None = None
    for count in colours:
        for sides in (_SIDES, _BLOCKS):
            try:
                return Trial(_scale_at((count, *sides), network, title), count)
            except UserError as refused:
                first = first or refused
    assert first is not None, "expected some number of channels"
    raise first


def _scale_at(shape: tuple[int, int, int], network: Callable[[Tensor], object], title: str) -> int:
    """Restore a picture, C × H × W, and return how many times larger it became.

    Raises:
        UserError: If the network does not restore it.
    """
    channels, *sides = shape
    image = torch.linspace(0, 1, math.prod(shape)).reshape(1, *shape)
    size = f"a picture of {sides[0]}×{sides[1]} pixels"
    try:
        with torch.no_grad():
            restored = network(image)
    except Exception as error:
        raise UserError(
            f"{title} raises {type(error).__name__} on {size}: {first_line(error)}"
        ) from error
    if not isinstance(restored, Tensor):
        count = f" of {len(restored)}" if isinstance(restored, tuple | list | dict) else ""
        raise UserError(
            f"{title} returns a {type(restored).__name__}{count}; expected one tensor, the "
            "restored picture"
        )
    if restored.ndim != 4 or restored.shape[:2] != image.shape[:2]:
        raise UserError(
            f"{title} turns a picture of shape {tuple(image.shape)} into {tuple(restored.shape)}; "
            f"expected {_EXPECTED[channels]}"
        )
    height, width = restored.shape[2:]
    scale = height // sides[0]
    if scale < 1 or (height, width) != (scale * sides[0], scale * sides[1]):
        raise UserError(
            f"{title} turns {size} into one of {height}×{width}; expected the same size or a "
            "whole multiple"
        )
    if not restored.isfinite().all():
        raise UserError(f"{title} returns values that are not finite numbers on {size}")
    return scale


def _kept_by(tensors: set[int]) -> TorchDispatchMode:
    """Return a mode that adds the identity of every tensor that an operator takes."""

    class Kept(TorchDispatchMode):
        def __torch_dispatch__(
            self,
            func: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            tensors.update(id(one) for one in tree_leaves((args, kwargs)))
            return func(*args, **(kwargs or {}))

    return Kept()
