"""Ctrl-C, and what else ends a process politely, held back until what must not be torn is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_POLITE = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptions_held_back() -> Iterator[None]:
    """Raise the Ctrl-C of the time within at its end, and SIGTERM where it is handled as Ctrl-C.

    Other threads than the main one never see signals, and who handles them otherwise goes on doing
    so.
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
