"""The one exception that means: the person at the keyboard can put this right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the caller, told in one line: what was found, what was expected, what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
