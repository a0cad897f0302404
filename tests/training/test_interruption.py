from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from training.interruption import ctrl_c_held_back


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    """Background jobs of a shell start with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_end_and_is_raised_there() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), ctrl_c_held_back():
        _press()
        done.append("the rest")
    assert done
    with pytest.raises(KeyboardInterrupt):
        _press()


def test_an_error_within_comes_through_and_ctrl_c_works_again() -> None:
    with pytest.raises(ValueError, match="within"), ctrl_c_held_back():
        raise ValueError("within")
    with pytest.raises(KeyboardInterrupt):
        _press()


def test_who_ignores_ctrl_c_goes_on_doing_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ctrl_c_held_back():
        _press()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_other_threads_may_train() -> None:
    done = []

    def work() -> None:
        with ctrl_c_held_back():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
