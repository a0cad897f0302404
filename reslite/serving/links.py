"""Who may use the page: links with a one-time token, and the sessions that they open."""

from __future__ import annotations

import secrets
from collections.abc import Callable

_LARGEST = 64
"""Sessions; the oldest ends when there are more."""


class Links:
    """Tokens that open one session each: a link that somebody else reads later opens nothing.

    Args:
        told: Receives the token of each new link: at once, and after each use.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._sessions: list[str] = []
        self._renew()

    def open(self, token: str) -> str | None:
        """Return the secret of a new session, or None if the token is not that of the link."""
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        self._renew()
        session = secrets.token_urlsafe(24)
        self._sessions = [*self._sessions, session][-_LARGEST:]
        return session

    def knows(self, session: str) -> bool:
        """Tell whether this is the secret of a session."""
        given = session.encode()
        return any(secrets.compare_digest(given, one.encode()) for one in self._sessions)

    def _renew(self) -> None:
        self.token = secrets.token_urlsafe(16)
        self._told(self.token)
