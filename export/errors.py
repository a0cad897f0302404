"""What can go wrong between a network and its file."""

from __future__ import annotations

from runtime.errors import UserError


class CannotLower(UserError):
    """A graph holds something that a rewrite or a writer cannot express; the message says what."""


class InvalidGraph(CannotLower):
    """A graph contradicts itself; the message names node and value."""
