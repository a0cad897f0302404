"""The exception for errors that the person at the keyboard can correct, and its messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """A mistake of the caller, in one line: what was found, what was expected, what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign library's error message, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def nearest(word: str, known: Sequence[str]) -> str:
    """Return '; did you mean …?' with the known word nearest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
