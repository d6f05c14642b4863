"""The ways from a leg to its session in the user agent."""

from __future__ import annotations

from typing import Protocol

from switchhook.telephony.sip_transfer import AgentDoor, LegTransfer
from switchhook.telephony.wire.offer_answer import LocalMedia
from switchhook.telephony.wire.sdes import SrtpMode
from switchhook.telephony.wire.sip.flow import Flow
from switchhook.telephony.wire.sip.session_events import SessionId


class MediaDoor(AgentDoor, Protocol):
    """What links and outgoing legs ask of the SIP server."""

    def local_media(self, flow: Flow, rtp_port: int, srtp: SrtpMode) -> LocalMedia:
        """Our side of a new session's media, with fresh keys."""


class SessionLink:
    """An offered leg's way to its session."""

    def __init__(self, server: MediaDoor, session: SessionId, flow: Flow, srtp: SrtpMode, transfer: LegTransfer) -> None:
        self.transfer = transfer
        self._server = server
        self._session = session
        self._flow = flow
        self._srtp = srtp

    def ring(self) -> None:
        """Send 180."""
        self._server.feed(lambda agent, now: agent.ring(self._session, now))

    def answer(self, rtp_port: int) -> None:
        """Send 200 with this port."""
        local = self._server.local_media(self._flow, rtp_port, self._srtp)
        self._server.feed(lambda agent, now: agent.answer(self._session, local, now))

    def reject(self, status: int, retry_after_s: int | None) -> None:
        """Send a final refusal."""
        self._server.feed(lambda agent, now: agent.reject(self._session, status, retry_after_s, now))

    def hang_up(self) -> None:
        """480 before the answer, BYE after."""
        self._server.feed(lambda agent, now: agent.hang_up(self._session, now))

    def fail(self, reason: str, detail: str) -> None:
        """The line does not work."""
        self._server.feed(lambda agent, now: agent.fail(self._session, reason, detail, now))
