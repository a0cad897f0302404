"""The exception for errors that the person at the keyboard can correct."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the caller, in one line: what was found, what was expected, what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign library's error message, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
