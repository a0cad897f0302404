from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from training.interruption import interruptions_held_back

_POLITE = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def _as_the_command_line_handles_signals() -> Iterator[None]:
    """Background jobs of a shell start with Ctrl-C ignored; SIGTERM is handled as Ctrl-C."""
    before = [signal.signal(one, signal.default_int_handler) for one in _POLITE]
    yield
    for one, handler in zip(_POLITE, before, strict=True):
        signal.signal(one, handler)


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("one", _POLITE)
def test_an_interruption_waits_for_the_end_and_is_raised_there(one: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interruptions_held_back():
        signal.raise_signal(one)
        done.append("the rest")
    assert done
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(one)


def test_an_error_within_comes_through_and_ctrl_c_works_again() -> None:
    with pytest.raises(ValueError, match="within"), interruptions_held_back():
        raise ValueError("within")
    with pytest.raises(KeyboardInterrupt):
        _press()


def test_who_ignores_ctrl_c_goes_on_doing_so_and_is_ended_politely() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptions_held_back():
        _press()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    done = []
    with pytest.raises(KeyboardInterrupt), interruptions_held_back():
        signal.raise_signal(signal.SIGTERM)
        done.append("the rest")
    assert done


def test_other_threads_may_train() -> None:
    done = []

    def work() -> None:
        with interruptions_held_back():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
