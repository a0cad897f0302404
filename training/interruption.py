"""Ctrl-C and SIGTERM held back until a block of code that must not be cut short has ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_POLITE = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptions_held_back() -> Iterator[None]:
    """Delay ``KeyboardInterrupt`` for Ctrl-C, or SIGTERM if handled like it, to the block's end.

    Does nothing outside the main thread, which alone receives signals, and leaves a signal with
    another handler to that handler.
    """
    held: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        held = [one for one in _POLITE if signal.getsignal(one) == signal.default_int_handler]
    came = threading.Event()
    for one in held:
        signal.signal(one, lambda number, frame: came.set())
    try:
        yield
    finally:
        for one in held:
            signal.signal(one, signal.default_int_handler)
    if came.is_set():
        raise KeyboardInterrupt
