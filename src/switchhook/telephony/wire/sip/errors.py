"""What can be wrong with SIP text. Every error is raised fresh; none carries a whole message or a credential."""

from __future__ import annotations


class SipError(Exception):
    """Something about a SIP message is wrong."""


class GrammarError(SipError, ValueError):
    """A text is not what its grammar asks for (a URI, an address, a Via…). Says what was expected."""


class RemoteProtocolError(SipError):
    """The peer broke the protocol; `status_hint` is the response code that answers it."""

    def __init__(self, status_hint: int, reason: str) -> None:
        super().__init__(f"{status_hint} {reason}")
        self.status_hint = status_hint
        self.reason = reason
        """One line for the reason phrase and the log; names the header field."""
